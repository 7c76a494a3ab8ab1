//! Servers that are something else than the operator thinks.

use std::time::{Duration, Instant};

use sidestream::log::redis::{Ack, RedisLog, RedisOptions, RefusedStore};
use sidestream::log::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::actors::*;
use crate::connecting::{refusal, works};
use crate::redis_cluster::RedisCluster;
use crate::redis_sentinel::RedisSentinel;
use crate::redis_server::{RedisServer, RedisServerOptions, free_port};

/// The refusal, which comes within seconds and says what to write.
async fn is_refused(url: String, says: &str) -> RefusedStore {
    let begun = Instant::now();
    let refused = refusal(RedisOptions::new(&*url)).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{url}: {:?}", begun.elapsed());
    assert!(refused.to_string().contains(says), "{url}: {refused}");
    refused
}

fn at(scheme: &str, server: &RedisServer, rest: &str) -> String {
    format!("{scheme}://127.0.0.1:{}{rest}", server.port())
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_refused_with_the_scheme_to_write() {
    let server = RedisServerOptions::default().directive("requirepass x").start();
    let refused = is_refused(at("rediss", &server, ""), "speaks no TLS: write redis://").await;
    assert!(matches!(refused, RefusedStore::Scheme { .. }), "{refused}");
    is_refused(at("rediss-cluster", &server, ""), "speaks no TLS: write redis-cluster://").await;
    is_refused(at("rediss-sentinel", &server, "?master=m"), "speaks no TLS: write redis-sentinel://").await;
}

#[tokio::test]
async fn a_server_that_speaks_tls_is_refused_with_the_scheme_to_write() {
    for clients in ["no", "yes"] {
        let server = RedisServerOptions::default().tls().directive(format!("tls-auth-clients {clients}")).start();
        let refused = is_refused(at("redis", &server, ""), "speaks TLS: write rediss://").await;
        assert!(matches!(refused, RefusedStore::Scheme { .. }), "{refused}");
        is_refused(at("redis-cluster", &server, ""), "speaks TLS: write rediss-cluster://").await;
        is_refused(at("redis-sentinel", &server, "?master=m"), "speaks TLS: write rediss-sentinel://").await;
    }
}

#[tokio::test]
async fn who_is_not_there_speaks_nothing() {
    for scheme in ["redis", "rediss", "redis-cluster"] {
        let log = connect(format!("{scheme}://127.0.0.1:{}", free_port())).await;
        assert!(matches!(&*log.health().borrow(), StoreHealth::Down { .. }));
    }
}

#[tokio::test]
async fn a_frozen_server_is_away_and_not_mistaken_for_one_with_tls() {
    let server = RedisServer::start();
    server.freeze();
    let log = connect(server.url()).await;
    server.thaw();
    until_health(&log, |health| *health == StoreHealth::Up).await;
    works(&log).await;
}

#[tokio::test]
async fn a_single_server_is_no_cluster_and_no_sentinel() {
    let server = RedisServer::start();
    is_refused(at("redis-cluster", &server, ""), "not in cluster mode: write redis://").await;
    let refused = is_refused(at("redis-sentinel", &server, "?master=m"), "not a sentinel").await;
    assert!(matches!(refused, RefusedStore::NoSentinel { .. }), "{refused}");
}

#[tokio::test]
async fn a_part_of_a_cluster_is_no_single_server() {
    let server = RedisServerOptions::default().cluster().start();
    is_refused(at("redis", &server, ""), "in cluster mode: write redis-cluster://").await;
}

#[tokio::test]
async fn a_cluster_that_nobody_has_formed_is_waited_for_in_words() {
    let server = RedisServerOptions::default().cluster().start();
    let log = connect(at("redis-cluster", &server, "")).await;
    let health = log.health().borrow().clone();
    assert!(matches!(&health, StoreHealth::Down { reason } if reason.contains("form it first")), "{health:?}");
    let all = ::redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).to_owned();
    all.exec_async(&mut server.client().await).await.unwrap();
    until_health(&log, |health| *health == StoreHealth::Up).await;
    works(&log).await;
}

/// A server that says `info` of itself, and that all is well otherwise.
async fn who_says(info: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (requests, mut answers) = stream.into_split();
                let mut lines = BufReader::new(requests).lines();
                while let Ok(Some(count)) = lines.next_line().await {
                    // `*<words>`, then a length and a word each (RESP).
                    let mut words = Vec::new();
                    for _ in 0..2 * count[1..].parse::<usize>().unwrap() {
                        words.extend(lines.next_line().await.unwrap());
                    }
                    let answer =
                        if words[1] == "INFO" { format!("${}\r\n{info}\r\n", info.len()) } else { "+OK\r\n".into() };
                    answers.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let port = who_says("redis_version:6.0.16\r\nredis_mode:standalone\r\nrole:master\r\n").await;
    let refused = is_refused(format!("redis://127.0.0.1:{port}"), "version 6.2 or newer is needed").await;
    assert!(matches!(refused, RefusedStore::Version { .. }), "{refused}");
}

#[tokio::test]
async fn a_cluster_of_6_2_is_too_old() {
    let server = RedisServerOptions::default().version_6_2().directive("cluster-enabled yes").start();
    let slots: Vec<u16> = (0..16384).collect();
    let all = ::redis::cmd("CLUSTER").arg("ADDSLOTS").arg(slots).to_owned();
    all.exec_async(&mut server.client().await).await.unwrap();
    is_refused(at("redis-cluster", &server, ""), "version 7.0 (for a cluster) or newer is needed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_is_no_server_and_knows_only_its_primaries() {
    let mut deployment = RedisSentinel::start().await;
    let sentinel = deployment.sentinel_mut(0);
    is_refused(at("redis", sentinel, ""), "is a sentinel, which keeps no data: write redis-sentinel://").await;
    let refused = is_refused(at("redis-sentinel", sentinel, "?master=nobody"), "?master=NAME").await;
    assert!(matches!(refused, RefusedStore::Master { .. }), "{refused}");
    works(&*connect(at("redis-sentinel", sentinel, "/3?master=mymaster")).await).await;
}

#[tokio::test]
async fn replicated_entries_need_a_replica_from_the_start() {
    let primary = RedisServer::start();
    let options = RedisOptions { ack: Ack::Replicated, ..RedisOptions::new(primary.url()) };
    let refused = refusal(options.clone()).await;
    assert!(matches!(refused, RefusedStore::NoReplica { .. }), "{refused}");
    assert!(refused.to_string().contains("store.ack = \"memory\""), "{refused}");

    let of = format!("replicaof 127.0.0.1 {}", primary.port());
    let mut replica = RedisServerOptions::default().directive(of).start();
    until(async || RedisLog::connect(options.clone()).await.is_ok()).await;
    let log = RedisLog::connect(options).await.unwrap();
    // Later its absence is an outage, and nobody starts over.
    replica.kill();
    drop(primary);
    until_health(&log, |health| *health != StoreHealth::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_primary_of_a_cluster_is_examined() {
    let cluster = RedisCluster::start().await;
    let policy = ["CONFIG", "SET", "maxmemory-policy", "volatile-lru"];
    let set = ::redis::cmd(policy[0]).arg(&policy[1..]).to_owned();
    let _: () = set.query_async(&mut cluster.node(1).client().await).await.unwrap();
    let log = connect(cluster.url()).await;
    let evicting: Vec<_> = log.warnings().into_iter().filter(|warning| warning.contains("volatile-lru")).collect();
    assert_eq!(evicting.len(), 1, "{evicting:?}");
    assert!(evicting[0].contains(&cluster.node(1).port().to_string()), "{evicting:?}");
}
