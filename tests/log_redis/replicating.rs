//! `ack = replicated`: what was acknowledged or shown is on a replica.

use sidestream::log::redis::{Ack, RedisLog, RedisOptions};
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::redis_server::{RedisServer, RedisServerOptions};

fn replica_of(primary: &RedisServer) -> RedisServer {
    RedisServerOptions::default().directive(format!("replicaof 127.0.0.1 {}", primary.port())).start()
}

/// Waits until the replica has everything.
async fn in_sync(replica: &RedisServer) {
    let mut client = replica.client().await;
    until(async || {
        let info: String = ::redis::cmd("INFO").arg("replication").query_async(&mut client).await.unwrap();
        info.contains("master_link_status:up")
    })
    .await;
}

async fn careful(server: &RedisServer) -> std::sync::Arc<RedisLog> {
    let options = RedisOptions { ack: Ack::Replicated, ..RedisOptions::new(server.url()) };
    RedisLog::connect(options).await.expect("the server is usable")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_replica_has_is_neither_acknowledged_nor_shown_to_anybody() {
    let primary = RedisServer::start();
    let replica = replica_of(&primary);
    in_sync(&replica).await;
    let (here, there) = (careful(&primary).await, careful(&primary).await);
    let mut owner = Owner::new("s", "r");
    owner.open(&*here).await;
    owner.says(&*here, &["one"]).await;
    let mut reader = Reader::join(there.clone(), &owner.session).await;
    owner.says(&*here, &["two"]).await;
    reader.until(3).await;

    replica.freeze();
    let unsure = owner.append(&["three"]);
    assert!(here.append(unsure.clone()).await.is_err(), "no replica has it");
    let mut client = primary.client().await;
    let length: u64 = ::redis::cmd("XLEN").arg("ss:{default:s}:log").query_async(&mut client).await.unwrap();
    assert_eq!(length, 4, "the primary has it");
    assert!(there.read(&owner.session, reader.cursor, PageLimits::default()).await.is_err());
    assert_eq!(reader.seen.len(), 3);

    replica.thaw();
    let answer = insist(async || here.append(unsure.clone()).await).await;
    assert!(matches!(answer, Appended::Duplicate { .. }), "{answer:?}");
    reader.until(4).await;
    assert_eq!(data(&reader.seen), ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_acknowledged_is_on_the_replica_when_the_primary_dies() {
    let mut primary = RedisServer::start();
    let replica = replica_of(&primary);
    in_sync(&replica).await;
    let log = careful(&primary).await;
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut owner = Owner::new(&format!("s{n}"), &format!("r{n}"));
                owner.open(&*log).await;
                // Until the primary is gone.
                while let Ok(Appended::Stored { last, .. }) = log.append(owner.append(&["more"])).await {
                    (owner.n, owner.tail) = (owner.n + 1, last);
                }
                owner
            })
        })
        .collect();
    let mut client = primary.client().await;
    until(async || {
        let length: u64 = ::redis::cmd("XLEN").arg("ss:{default:s7}:log").query_async(&mut client).await.unwrap();
        length > 20
    })
    .await;
    primary.kill();
    let mut client = replica.client().await;
    for writer in writers {
        let Owner { session, n, tail, .. } = writer.await.unwrap();
        let key = format!("ss:{{default:{session}}}:log");
        let mut ask = ::redis::cmd("XRANGE");
        let found: Vec<::redis::Value> =
            ask.arg(&key).arg(tail.to_string()).arg(tail.to_string()).query_async(&mut client).await.unwrap();
        assert_eq!(found.len(), 1, "{session} was told of {n} entries");
    }
}

/// The symptom: nobody could read any more, and no run end, until there was room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_full_is_read_and_its_runs_end() {
    for version in [RedisServerOptions::default(), RedisServerOptions::default().version_6_2()] {
        let primary = version.directive("maxmemory-policy noeviction").start();
        let replica = replica_of(&primary);
        in_sync(&replica).await;
        let log = careful(&primary).await;
        let mut owner = Owner::new("s", "r");
        owner.open(&*log).await;
        owner.says(&*log, &["one"]).await;
        let full = ::redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).to_owned();
        let () = full.query_async(&mut primary.client().await).await.unwrap();
        log.append(owner.append(&["two"])).await.expect_err("the server is full");
        assert_eq!(data(&read_after(&*log, &owner.session, Offset::ZERO).await), ["one"]);
        owner.ends(&*log).await;

        // Nor does it count for less.
        replica.freeze();
        log.read(&owner.session, Offset::ZERO, PageLimits::default()).await.expect_err("no replica answers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_a_barrier() {
    let primary = RedisServer::start();
    let replica = replica_of(&primary);
    in_sync(&replica).await;
    let log = careful(&primary).await;
    let mut client = primary.client().await;
    let _: () = ::redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut client).await.unwrap();
    let writers = (0..200).map(|n| {
        let log = log.clone();
        async move {
            let mut owner = Owner::new(&format!("s{n}"), &format!("r{n}"));
            owner.open(&*log).await;
            owner.says(&*log, &["hi"]).await;
        }
    });
    futures_util::future::join_all(writers).await;
    let stats: String = ::redis::cmd("INFO").arg("commandstats").query_async(&mut client).await.unwrap();
    let waits = stats.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls=")?.split(',').next());
    let waits: u64 = waits.expect("it waited").parse().unwrap();
    assert!(waits < 200, "{waits} barriers for 400 answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_replaced_and_has_its_place_again_is_another_one() {
    let first = RedisServer::start();
    let second = replica_of(&first);
    in_sync(&second).await;
    let log = connect(first.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let (_, shared) = owner.says(&*log, &["kept"]).await;
    let (mut at_first, mut at_second) = (first.client().await, second.client().await);
    until(async || {
        let length: u64 = ::redis::cmd("XLEN").arg("ss:{default:s}:log").query_async(&mut at_second).await.unwrap();
        length == owner.n
    })
    .await;
    let obey = |port: Option<u16>| {
        let (host, port) = port.map_or(("NO".into(), "ONE".into()), |port| ("127.0.0.1".to_owned(), port.to_string()));
        ::redis::cmd("REPLICAOF").arg(host).arg(port).to_owned()
    };
    obey(None).query_async::<()>(&mut at_second).await.unwrap();
    let (_, lost) = owner.says(&*log, &["lost"]).await;
    // The connection outlives both changes, and nothing is asked of the server in between.
    let left = until_health(&log, |health| *health != StoreHealth::Up);
    let replaced = async {
        obey(Some(second.port())).query_async::<()>(&mut at_first).await.unwrap();
        in_sync(&first).await;
        obey(None).query_async::<()>(&mut at_first).await.unwrap();
    };
    tokio::join!(left, replaced);
    let mut other = Owner::new("s", "other");
    insist(async || log.open_run(other.opening()).await).await;
    (other.n, other.tail) = (1, Offset::ZERO);
    other.insists(&*log, &["elsewhere", "and more"]).await;
    let gap = gap(&*log, &owner.session, lost).await;
    assert_eq!((gap.to, gap.reason), (shared, GapReason::RolledBack));
}
