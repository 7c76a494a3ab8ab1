//! Commands between instances: what the server does to a push must not cost a command.

use std::time::Duration;

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::redis_server::{RedisServer, RedisServerOptions};

const LEASE: Duration = Duration::from_secs(3);

fn cancel() -> Command {
    let (session, run) = (SessionId::parse("s").unwrap(), RunId::parse("r").unwrap());
    Command::Cancel { session, run, by: r#"{"client":"a b"}"#.into() }
}

fn me() -> InstanceId {
    InstanceId::parse("inst-1").unwrap()
}

async fn renew(log: &dyn Log) -> Vec<Command> {
    match log.renew(&me(), LEASE).await.unwrap() {
        Renewal::Alive { commands } => commands,
        Renewal::Dead => panic!("dead"),
    }
}

#[tokio::test]
async fn a_command_goes_from_one_instance_to_another() {
    let server = RedisServer::start();
    let (here, there) = (connect(server.url()).await, connect(server.url()).await);
    let mut commands = here.commands(&me()).await.unwrap();
    assert!(there.command(&me(), cancel()).await.unwrap());
    let heard = tokio::time::timeout(PATIENCE, commands.next()).await.unwrap();
    assert_eq!(heard, Some(cancel()));
}

#[tokio::test]
async fn a_command_whose_push_is_lost_comes_with_the_renewal() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut commands = log.commands(&me()).await.unwrap();
    // As the command script does it, without its push.
    let mut client = server.client().await;
    let element = r#"0123456789abcdef 1 cancel s r {"client":"a b"}"#;
    let _: () = ::redis::cmd("RPUSH").arg("ss:{inst}:cmds:inst-1").arg(element).query_async(&mut client).await.unwrap();

    assert_eq!(renew(&*log).await, [cancel()]);
    // The push comes after all: it is known.
    let _: i64 =
        ::redis::cmd("PUBLISH").arg("ss:{inst}:ch:inst-1").arg(element).query_async(&mut client).await.unwrap();
    assert!(log.command(&me(), cancel()).await.unwrap());
    let first = tokio::time::timeout(PATIENCE, commands.next()).await.unwrap();
    assert_eq!(first, Some(cancel()));
    assert!(tokio::time::timeout(Duration::from_millis(100), commands.next()).await.is_err(), "it came twice");
    assert_eq!(renew(&*log).await, vec![]);
    let left: usize = ::redis::cmd("LLEN").arg("ss:{inst}:cmds:inst-1").query_async(&mut client).await.unwrap();
    assert_eq!(left, 0, "what was heard is removed");
}

#[tokio::test]
async fn a_command_stays_until_its_renewal_was_answered() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    assert!(log.command(&me(), cancel()).await.unwrap());
    // A renewal whose answer is lost: another log of the same instance got it.
    assert_eq!(renew(&*connect(server.url()).await).await, [cancel()]);
    assert_eq!(renew(&*log).await, [cancel()]);
    assert_eq!(renew(&*log).await, vec![]);
}

#[tokio::test]
async fn listening_goes_on_after_the_server_restarted() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut commands = log.commands(&me()).await.unwrap();
    server.restart();
    until_health(&log, |health| *health != StoreHealth::Up).await;
    until_health(&log, |health| *health == StoreHealth::Up).await;
    let mut heard = None;
    until(async || {
        insist(async || log.command(&me(), cancel()).await).await;
        heard = tokio::time::timeout(Duration::from_millis(50), commands.next()).await.ok().flatten();
        heard.is_some()
    })
    .await;
    assert_eq!(heard, Some(cancel()));
}

#[tokio::test]
async fn a_full_server_takes_cancels_and_commands() {
    let server = RedisServerOptions::default().directive("maxmemory-policy noeviction").start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut client = server.client().await;
    let _: () = ::redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").query_async(&mut client).await.unwrap();
    log.append(owner.append(&["full"])).await.expect_err("the server is full");

    let cancel_of = |target| CancelRequest { session: owner.session.clone(), target, by: "{}".into() };
    let answer = log.cancel(cancel_of(CancelTarget::Run(owner.run.clone()))).await.unwrap();
    assert_eq!(answer, Cancelled::Runs(vec![(owner.run.clone(), CancelOutcome::Requested { owner: me() })]));
    let answer = log.cancel(cancel_of(CancelTarget::Key("key".into()))).await.unwrap();
    assert_eq!(answer, Cancelled::Remembered);
    let commands = renew(&*log).await;
    assert!(matches!(&commands[..], [Command::Cancel { run, .. }] if *run == owner.run), "{commands:?}");
}

#[tokio::test]
async fn on_a_full_server_nobody_seems_to_leave() {
    let server = RedisServerOptions::default().directive("maxmemory-policy noeviction").start();
    let log = connect(server.url()).await;
    let (session, lease) = (SessionId::parse("s").unwrap(), Duration::from_millis(500));
    let connection = |name| ConnectionId::parse(name).unwrap();
    let client = ClientName::parse("phone").unwrap();
    for name in ["stays", "leaves"] {
        let present = Present { connection: connection(name), client: client.clone(), state: "1".into() };
        assert_eq!(log.appear(&session, present, lease).await.unwrap(), Appeared::Here);
    }
    let mut redis = server.client().await;
    let _: () = ::redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").query_async(&mut redis).await.unwrap();
    let end = std::time::Instant::now() + lease * 3;
    while std::time::Instant::now() < end {
        assert_eq!(log.stay(&session, vec![connection("stays")], lease).await.unwrap(), []);
        tokio::time::sleep(lease / 10).await;
    }
    log.depart(&session, &connection("stays")).await.unwrap();
    assert_eq!(log.shared(&session).await.unwrap().present, []);
}

#[tokio::test]
async fn a_request_to_cancel_outlives_the_loss_of_meta() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    let parent = RunId::parse("parent").unwrap();
    let opening = OpenRun { parent: Some(parent.clone()), key: Some("key".into()), ..owner.opening() };
    let Opened::Open { started, .. } = log.open_run(opening).await.unwrap() else { panic!("not open") };
    (owner.n, owner.tail) = (1, started);
    let request = |target| CancelRequest { session: owner.session.clone(), target, by: "{}".into() };
    log.cancel(request(CancelTarget::Run(owner.run.clone()))).await.unwrap();
    let mut client = server.client().await;
    let _: () = ::redis::cmd("DEL").arg("ss:{default:s}:meta").query_async(&mut client).await.unwrap();

    let again = log.cancel(request(CancelTarget::Key("key".into()))).await.unwrap();
    assert_eq!(again, Cancelled::Runs(vec![(owner.run.clone(), CancelOutcome::Requested { owner: me() })]));
    let info = log.run(&owner.session, &owner.run).await.unwrap().unwrap();
    assert_eq!((info.owner, info.parent, info.cancel.as_deref()), (me(), Some(parent), Some("{}")));
    let stored = log.append(owner.append(&["on"])).await.unwrap();
    assert!(matches!(stored, Appended::Stored { flags: RunFlags { cancel: Some(_) }, .. }), "{stored:?}");
}

#[tokio::test]
async fn what_one_instance_has_queued_another_starts() {
    let server = RedisServer::start();
    let (dying, heir) = (connect(server.url()).await, connect(server.url()).await);
    let mut root = Owner::new("s", "root");
    root.open(&*dying).await;
    let limits = QueueLimits { depth: 8, bytes: 1000 };
    let on_busy = OnBusy::Queue(Waiting { item: vec![0, 0xff].into(), client: None, limits });
    let queued = Owner::new("s", "queued");
    let opened = dying.open_run(OpenRun { on_busy, ..queued.opening() }).await.unwrap();
    assert_eq!(opened, Opened::Queued { position: 1 });
    dying.close().await;
    drop(dying);

    let takeover = |owner: &Owner| {
        let (session, run) = (owner.session.clone(), owner.run.clone());
        Takeover { session, run, nonce: "heir".into(), details: "{}".into() }
    };
    assert_eq!(heir.takeover(takeover(&queued)).await.unwrap(), TakenOver::Queued);
    assert!(matches!(heir.takeover(takeover(&root)).await.unwrap(), TakenOver::Ended { .. }));
    let me = InstanceId::parse("heir").unwrap();
    let starts = heir.start_queued(&root.session, &me, START_WITHIN).await.unwrap();
    assert_eq!(starts.yours[0].item[..], [0, 0xff]);
    assert!(matches!(heir.open_run(queued.opening()).await.unwrap(), Opened::Open { .. }));
    assert_eq!(heir.queue(&root.session).await.unwrap(), vec![]);
}
