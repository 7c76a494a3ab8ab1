//! What is stored, as others see it: `docs/store-layout.md`.

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::{Builder, ClientLike, Config, HashesInterface, StreamsInterface};
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::redis_server::RedisServer;

/// The keys of the document, as patterns: `*` is one id.
const DOCUMENTED: [&str; 16] = [
    "ss:{default:*}:log",
    "ss:{default:*}:meta",
    "ss:{default:*}:active",
    "ss:{default:*}:tomb",
    "ss:{default:*}:cancels",
    "ss:{default:*}:queue",
    "ss:{default:*}:items",
    "ss:{default:*}:presence",
    "ss:{default:*}:cursors",
    "ss:run:*",
    "ss:subj:*",
    "ss:idem:*",
    "ss:{inst}:alive:*",
    "ss:{inst}:runs:*",
    "ss:{inst}:cmds:*",
    "ss:{inst}:all",
];

pub fn matches(pattern: &str, key: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == key,
        Some((before, after)) => {
            let id = key.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            id.is_some_and(|id| !id.is_empty() && !id.contains(':'))
        }
    }
}

/// Uses every operation that writes.
pub async fn everything(log: &dyn Log) {
    let me = InstanceId::parse("inst-1").unwrap();
    let (lease, other) = (Duration::from_secs(3), InstanceId::parse("inst-2").unwrap());
    log.renew(&me, lease).await.unwrap();
    log.renew(&other, lease).await.unwrap();
    for name in ["active", "ended", "taken", "erased"] {
        let mut owner = Owner::new(name, &format!("run-{name}"));
        assert!(log.enlist(&me, &owner.session, &owner.run).await.unwrap());
        owner.open(log).await;
        owner.says(log, &["a", "b"]).await;
        match name {
            "ended" => _ = owner.ends(log).await,
            "erased" => assert!(log.erase(&owner.session).await.unwrap()),
            "taken" => {
                let details = "{}".into();
                let takeover = Takeover { session: owner.session, run: owner.run, nonce: "heir".into(), details };
                log.takeover(takeover).await.unwrap();
            }
            _ => {}
        }
    }
    let never = Owner::new("never", "run-never");
    let takeover = Takeover { session: never.session, run: never.run, nonce: "heir".into(), details: "{}".into() };
    assert_eq!(log.takeover(takeover).await.unwrap(), TakenOver::NeverStarted);
    let producer = Writer::Producer { id: "a producer".into(), epoch: 7 };
    let owner = Owner::new("produced", "no-run");
    log.append(Append { writer: producer, ..owner.append(&["x"]) }).await.unwrap();
    log.claim("a key", "a value".into()).await.unwrap();
    let keyed = Owner::new("active", "run-keyed");
    log.open_run(OpenRun { key: Some("a key".into()), ..keyed.opening() }).await.unwrap();
    for name in ["queued", "withdrawn"] {
        let limits = QueueLimits { depth: 8, bytes: 1000 };
        let on_busy = OnBusy::Queue(Waiting { item: "{}".into(), client: None, limits });
        let queued = OpenRun { key: Some(name.into()), on_busy, ..Owner::new("active", name).opening() };
        assert!(matches!(log.open_run(queued).await.unwrap(), Opened::Queued { .. }));
    }
    assert!(log.withdraw(&keyed.session, "withdrawn").await.unwrap().is_some());
    for target in [CancelTarget::Active, CancelTarget::Key("another key".into())] {
        log.cancel(CancelRequest { session: keyed.session.clone(), target, by: "{}".into() }).await.unwrap();
    }
    let (connection, client) = (ConnectionId::parse("c1").unwrap(), ClientName::parse("phone").unwrap());
    let present = Present { connection, client: client.clone(), state: "{}".into() };
    log.appear(&keyed.session, present, lease).await.unwrap();
    let Bounds::Live(bounds) = log.bounds(&keyed.session).await.unwrap() else { panic!("it is gone") };
    let user = User::Client(client.clone());
    log.mark_read(&keyed.session, ReadCursor { user, client, offset: bounds.tail }).await.unwrap();
    assert!(log.bind(&keyed.session, &Subject::from_digest([7; 32])).await.unwrap());
    log.resign(&other).await.unwrap();
    log.sweep(&me).await.unwrap();
}

#[tokio::test]
async fn every_key_has_a_ttl_and_is_in_the_document() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    everything(&*log).await;

    let mut client = server.client().await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    assert!(keys.len() > 20, "{keys:?}");
    let document = include_str!("../../docs/store-layout.md");
    for pattern in DOCUMENTED {
        assert!(keys.iter().any(|key| matches(pattern, key)), "{pattern} was not written");
        let named = pattern.replace("{default:*}", "{T}").replace('*', "<");
        assert!(document.contains(named.trim_end_matches('<')), "{pattern} is not in the document");
    }
    for key in keys {
        assert!(DOCUMENTED.iter().any(|pattern| matches(pattern, &key)), "{key} is not documented");
        let ttl: i64 = ::redis::cmd("PTTL").arg(&key).query_async(&mut client).await.unwrap();
        assert!(ttl > 0, "{key} would stay for ever");
    }
}

#[tokio::test]
async fn every_field_of_meta_is_in_the_document() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    everything(&*log).await;
    let mut client = server.client().await;
    let document = include_str!("../../docs/store-layout.md");
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("ss:*:meta").query_async(&mut client).await.unwrap();
    for key in keys {
        let fields: Vec<String> = ::redis::cmd("HKEYS").arg(&key).query_async(&mut client).await.unwrap();
        for field in fields {
            let name = field.split_once(':').map_or(field.clone(), |(kind, _)| format!("{kind}:<"));
            assert!(document.contains(&format!("`{name}")), "{field} is not documented");
        }
    }
}

#[tokio::test]
async fn appends_keep_a_session_alive_all_keys_of_it() {
    let server = RedisServer::start();
    let ttl = Duration::from_secs(2);
    let retention = Retention { ttl, ..Retention::default() };
    let options =
        sidestream::log::redis::RedisOptions { retention, ..sidestream::log::redis::RedisOptions::new(server.url()) };
    let log = sidestream::log::redis::RedisLog::connect(options).await.unwrap();
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut client = server.client().await;
    // Long enough that the keys of the first append would be gone.
    let end = std::time::Instant::now() + ttl * 2;
    while std::time::Instant::now() < end {
        owner.says(&*log, &["on"]).await;
        for name in ["log", "meta", "active", "tomb"] {
            let pttl = ::redis::cmd("PTTL").arg(format!("ss:{{default:s}}:{name}")).to_owned();
            let left: i64 = pttl.query_async(&mut client).await.unwrap();
            assert!(left >= 900, "{name} has {left} ms left");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_reader_that_is_not_ours_finds_the_documented_stream() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("chat-1", "run-1");
    let started = owner.open(&*log).await;
    let record = Record {
        kind: Kind::Event,
        run: Some(owner.run.clone()),
        source: Some("planner".into()),
        event: Some("delta".into()),
        id: Some("7".into()),
        data: "{\"text\":\"hällo\"}".into(),
    };
    let bare = Record { source: None, event: None, id: None, data: "".into(), ..record.clone() };
    let answer = log.append(owner.append_records(vec![record, bare])).await.unwrap();
    let Appended::Stored { first, last, .. } = answer else { panic!("{answer:?}") };

    let client = Builder::from_config(Config::from_url(&server.url()).unwrap()).build().unwrap();
    client.init().await.unwrap();
    let rows: Vec<(String, HashMap<String, String>)> =
        client.xrange_values("ss:{default:chat-1}:log", "-", "+", None).await.unwrap();
    let meta: HashMap<String, String> = client.hgetall("ss:{default:chat-1}:meta").await.unwrap();
    client.quit().await.unwrap();

    let fields = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let expected = [
        (started.to_string(), fields(&[("kind", "run"), ("run", "run-1"), ("event", "started"), ("data", "{}")])),
        (
            first.to_string(),
            fields(&[
                ("run", "run-1"),
                ("source", "planner"),
                ("event", "delta"),
                ("id", "7"),
                ("data", "{\"text\":\"hällo\"}"),
            ]),
        ),
        (last.to_string(), fields(&[("run", "run-1"), ("data", "")])),
    ];
    assert_eq!(rows, expected);
    assert_eq!((&*meta["v"], &*meta["last"], &*meta["entries"]), ("1", &*last.to_string(), "3"));
}
