//! A server that is full: what begins waits, what ends goes on, and nothing is written by half.

use std::collections::BTreeMap;
use std::time::Duration;

use sidestream::log::redis::RedisLog;
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::redis_server::{RedisServer, RedisServerOptions};

/// The versions judge a script's memory differently, so both are asked.
fn servers() -> [RedisServer; 2] {
    let options = || RedisServerOptions::default().directive("maxmemory-policy noeviction");
    [options().start(), options().version_6_2().start()]
}

async fn limit(server: &RedisServer, bytes: u64) {
    let set = ::redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).to_owned();
    let _: () = set.query_async(&mut server.client().await).await.unwrap();
}

async fn used(server: &RedisServer) -> u64 {
    let info: String = ::redis::cmd("INFO").arg("memory").query_async(&mut server.client().await).await.unwrap();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

/// All that is stored, by key.
async fn everything(server: &RedisServer) -> BTreeMap<String, String> {
    let mut client = server.client().await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    let mut all = BTreeMap::new();
    for key in keys {
        let kind: String = ::redis::cmd("TYPE").arg(&key).query_async(&mut client).await.unwrap();
        let content = if kind == "hash" {
            // In no order that would stay.
            let fields: BTreeMap<String, String> =
                ::redis::cmd("HGETALL").arg(&key).query_async(&mut client).await.unwrap();
            format!("{fields:?}")
        } else {
            let dump: Vec<u8> = ::redis::cmd("DUMP").arg(&key).query_async(&mut client).await.unwrap();
            format!("{dump:?}")
        };
        all.insert(key, content);
    }
    all
}

/// What meta says of the log is so.
async fn assert_agrees(server: &RedisServer, session: &str) {
    let mut client = server.client().await;
    let (log, meta) = (format!("ss:{{default:{session}}}:log"), format!("ss:{{default:{session}}}:meta"));
    let length: u64 = ::redis::cmd("XLEN").arg(&log).query_async(&mut client).await.unwrap();
    let newest: Vec<(String, Vec<String>)> = ::redis::cmd("XREVRANGE")
        .arg(&log)
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .query_async(&mut client)
        .await
        .unwrap();
    let (last, entries): (String, u64) =
        ::redis::cmd("HMGET").arg(&meta).arg(&["last", "entries"]).query_async(&mut client).await.unwrap();
    assert_eq!((last, entries), (newest[0].0.clone(), length), "{session}");
}

fn instance(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

fn takeover(owner: &Owner) -> Takeover {
    let (session, run) = (owner.session.clone(), owner.run.clone());
    Takeover { session, run, nonce: "heir".into(), details: "{}".into() }
}

fn terminal(owner: &Owner) -> Record {
    Record::run_state(owner.run.clone(), RunState::Ended(Terminal::Completed), "{}")
}

async fn opened(log: &RedisLog, session: &str, run: &str) -> Owner {
    let mut owner = Owner::new(session, run);
    owner.open(log).await;
    owner
}

#[tokio::test]
async fn what_begins_is_refused_and_leaves_no_trace() {
    for server in servers() {
        what_begins_is_refused_and_leaves_no_trace_of(&server).await;
    }
}

async fn what_begins_is_refused_and_leaves_no_trace_of(server: &RedisServer) {
    let log = connect(server.url()).await;
    let owner = opened(&log, "s", "r").await;
    log.renew(&instance("inst-1"), Duration::from_secs(60)).await.unwrap();
    limit(server, 1).await;
    let before = everything(server).await;

    let (session, next) = (&owner.session, Owner::new("s", "next"));
    let events: Vec<Record> = owner.append(&["x".repeat(65_000), "y".repeat(1000)]).records;
    let with_backlog = owner.append_records([events, vec![terminal(&owner)]].concat());
    let producer = Writer::Producer { id: "p".into(), epoch: 1 };
    let free = Record { run: None, ..owner.append(&["x"]).records.remove(0) };
    let produced = Append { writer: producer, records: vec![free], first_n: 1, ..owner.append(&["x"]) };
    let (connection, client) = (ConnectionId::parse("c1").unwrap(), ClientName::parse("phone").unwrap());
    let present = Present { connection, client: client.clone(), state: "{}".into() };
    let cursor = ReadCursor { user: User::Client(client.clone()), client, offset: owner.tail };
    let limits = QueueLimits { depth: 8, bytes: 1000 };
    let on_busy = OnBusy::Queue(Waiting { item: "{}".into(), client: None, limits });
    let lease = Duration::from_secs(3);
    let refused = [
        ("an append", log.append(owner.append(&["x"])).await.err()),
        ("a terminal behind a backlog", log.append(with_backlog).await.err()),
        ("a producer's append", log.append(produced).await.err()),
        ("an opening", log.open_run(next.opening()).await.err()),
        ("the opening of a session", log.open_run(Owner::new("new", "r2").opening()).await.err()),
        ("a place in the queue", log.open_run(OpenRun { on_busy, ..next.opening() }).await.err()),
        ("a claim", log.claim("key", "value".into()).await.err()),
        ("a listing", log.enlist(&instance("inst-1"), session, &next.run).await.err()),
        ("an appearance", log.appear(session, present, lease).await.err()),
        ("a read cursor", log.mark_read(session, cursor).await.err()),
        ("a binding", log.bind(session, &Subject::from_digest([7; 32])).await.err()),
    ];
    for (what, refused) in refused {
        let refused = refused.unwrap_or_else(|| panic!("{what} was taken"));
        assert!(refused.detail.contains("OOM"), "{what}: {refused}");
    }
    assert_eq!(everything(server).await, before);
}

#[tokio::test]
async fn what_ends_goes_through() {
    for server in servers() {
        what_ends_goes_through_of(&server).await;
    }
}

async fn what_ends_goes_through_of(server: &RedisServer) {
    let log = connect(server.url()).await;
    let lease = Duration::from_secs(60);
    let (me, other, gone) = (instance("me"), instance("other"), instance("gone"));
    for instance in [&me, &other] {
        log.renew(instance, lease).await.unwrap();
    }
    log.renew(&gone, Duration::from_millis(1)).await.unwrap();
    let mut ends = opened(&log, "ends", "r1").await;
    let said = opened(&log, "said", "r2").await;
    let taken = opened(&log, "taken", "r3").await;
    let erased = opened(&log, "erased", "r4").await;
    let cancelled = opened(&log, "cancelled", "r5").await;
    let root = opened(&log, "queue", "root").await;
    for name in ["waits", "leaves"] {
        let limits = QueueLimits { depth: 8, bytes: 1000 };
        let on_busy = OnBusy::Queue(Waiting { item: "{}".into(), client: None, limits });
        let queued = OpenRun { key: Some(name.into()), on_busy, ..Owner::new("queue", name).opening() };
        assert!(matches!(log.open_run(queued).await.unwrap(), Opened::Queued { .. }));
    }
    log.claim("key", "calling".into()).await.unwrap();
    assert!(log.enlist(&gone, &taken.session, &taken.run).await.unwrap());
    limit(server, 1).await;
    log.append(ends.append(&["full"])).await.expect_err("the server is full");

    // An owner's terminal, alone or right behind its last events.
    ends.ends(&*log).await;
    let events = said.append(&["the", "last", "words"]).records;
    let answer = log.append(said.append_records([events, vec![terminal(&said)]].concat())).await.unwrap();
    assert!(matches!(answer, Appended::Stored { .. }), "{answer:?}");

    // The death of an owner, all of it.
    let mut dead = Vec::new();
    until(async || {
        dead = log.sweep(&me).await.unwrap();
        !dead.is_empty()
    })
    .await;
    assert_eq!(dead[0].runs, [(taken.session.clone(), taken.run.clone())]);
    assert!(matches!(log.takeover(takeover(&taken)).await.unwrap(), TakenOver::Ended { .. }));
    for never in [Owner::new("nowhere", "r6"), Owner::new("said", "r7")] {
        assert_eq!(log.takeover(takeover(&never)).await.unwrap(), TakenOver::NeverStarted);
    }
    log.unlist(&gone, &taken.session, &taken.run).await.unwrap();

    // The queue goes on.
    assert!(log.withdraw(&root.session, "leaves").await.unwrap().is_some());
    assert!(matches!(log.takeover(takeover(&root)).await.unwrap(), TakenOver::Ended { .. }));
    let starts = log.start_queued(&root.session, &me, START_WITHIN).await.unwrap();
    assert_eq!(starts.yours[0].run.as_str(), "waits");

    let target = CancelTarget::Run(cancelled.run.clone());
    log.cancel(CancelRequest { session: cancelled.session.clone(), target, by: "{}".into() }).await.unwrap();
    assert!(log.amend("key", "calling".into(), Some("failed".into())).await.unwrap());
    assert!(log.amend("key", "failed".into(), None).await.unwrap());
    assert!(log.erase(&erased.session).await.unwrap());
    log.resign(&other).await.unwrap();
    assert!(log.is_dead(&other).await.unwrap());

    for session in ["ends", "said", "taken", "queue", "cancelled"] {
        assert_agrees(server, session).await;
    }
    assert_eq!(data(&read_after(&*log, &said.session, Offset::ZERO).await), ["the", "last", "words"]);
    log.append(cancelled.append(&["full"])).await.expect_err("all of this has not lifted the limit");
}

#[tokio::test]
async fn meta_that_was_evicted_is_rebuilt_so_that_its_log_is_read_and_its_run_ends() {
    for server in servers() {
        meta_that_was_evicted_is_rebuilt_so_that_its_log_is_read_and_its_run_ends_of(&server).await;
    }
}

async fn meta_that_was_evicted_is_rebuilt_so_that_its_log_is_read_and_its_run_ends_of(server: &RedisServer) {
    let log = connect(server.url()).await;
    let owner = opened(&log, "s", "r").await;
    let read = opened(&log, "read", "r2").await;
    let mut client = server.client().await;
    for session in ["s", "read"] {
        let meta = format!("ss:{{default:{session}}}:meta");
        let _: () = ::redis::cmd("DEL").arg(meta).query_async(&mut client).await.unwrap();
    }
    limit(server, 1).await;
    assert_eq!(read_after(&*log, &read.session, Offset::ZERO).await.len(), 1);
    assert!(matches!(log.takeover(takeover(&owner)).await.unwrap(), TakenOver::Ended { .. }));
    assert_agrees(server, "s").await;
}

#[tokio::test]
async fn an_append_during_which_the_memory_ends_is_whole() {
    for server in servers() {
        an_append_during_which_the_memory_ends_is_whole_of(&server).await;
    }
}

async fn an_append_during_which_the_memory_ends_is_whole_of(server: &RedisServer) {
    let log = connect(server.url()).await;
    let mut owner = opened(&log, "s", "r").await;
    let texts = vec!["x".repeat(2000); 200];
    owner.says(&*log, &texts).await; // so that what it costs is known to the server
    limit(server, used(server).await + 500_000).await;
    // Several of these cross the limit in their middle, unless one of them is refused.
    let refused = loop {
        match log.append(owner.append(&texts)).await {
            Ok(Appended::Stored { last, .. }) => {
                (owner.n, owner.tail) = (owner.n + texts.len() as u64, last);
                assert_agrees(server, "s").await;
            }
            Ok(other) => panic!("{other:?}"),
            Err(refused) => break refused,
        }
    };
    assert!(refused.detail.contains("OOM"), "{refused}");
    assert!(owner.n > 1 + 200, "none was taken");
    let over = used(server).await;
    assert_agrees(server, "s").await;
    limit(server, 2 * over).await;
    owner.says(&*log, &["there is room again"]).await;
    assert_contiguous(Offset::ZERO, &read_after(&*log, &owner.session, Offset::ZERO).await);
}
