//! Reaching a server, being refused by one, and doing without one.

use std::time::{Duration, Instant};

use sidestream::log::redis::{RedisLog, RedisOptions, RefusedStore};
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::redis_server::{RedisServer, RedisServerOptions, free_port};

pub async fn refusal(options: RedisOptions) -> RefusedStore {
    match RedisLog::connect(options).await {
        Err(refused) => refused,
        Ok(log) => panic!("the server is not refused: {:?}", *log.health().borrow()),
    }
}

pub async fn works(log: &RedisLog) {
    let mut owner = Owner::new("works", "works");
    owner.open(log).await;
    owner.says(log, &["hello"]).await;
    assert_eq!(data(&read_after(log, &owner.session, Offset::ZERO).await), ["hello"]);
    assert!(log.follow(&owner.session).await.is_ok());
}

#[tokio::test]
async fn tls_works_with_the_ca_that_the_operator_names() {
    let server = RedisServerOptions::default().tls().start();
    let options = RedisOptions { ca_file: Some(server.ca_file()), ..RedisOptions::new(server.url()) };
    works(&RedisLog::connect(options).await.unwrap()).await;
}

#[tokio::test]
async fn the_oldest_supported_version_is_enough() {
    let server = RedisServerOptions::default().version_6_2().start();
    works(&*connect(server.url()).await).await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_in_words_that_say_what_to_do() {
    let (server, other) = (RedisServerOptions::default().tls().start(), RedisServerOptions::default().tls().start());
    let refused = refusal(RedisOptions { ca_file: Some(other.ca_file()), ..RedisOptions::new(server.url()) }).await;
    assert!(matches!(refused, RefusedStore::Tls { .. }), "{refused}");
    assert!(refused.to_string().contains("name the CA"), "{refused}");
}

#[tokio::test]
async fn a_user_with_no_more_than_the_named_permissions_is_enough() {
    let server = RedisServerOptions::default()
        .directive("user default off")
        .directive("user side on >s%cret ~ss:* resetchannels &ss:* +@all -@dangerous +info")
        .start();
    works(&*connect(server.url_as("side:s%25cret")).await).await;
}

#[tokio::test]
async fn a_user_without_channels_is_refused_with_the_permission_to_grant() {
    let server = RedisServerOptions::default().directive("user side on >secret ~ss:* resetchannels +@all").start();
    let refused = refusal(RedisOptions::new(server.url_as("side:secret"))).await;
    assert!(matches!(refused, RefusedStore::Permission { .. }), "{refused}");
    assert!(refused.to_string().contains("ACL SETUSER side ~ss:* resetchannels &ss:*"), "{refused}");
}

#[tokio::test]
async fn wrong_or_missing_credentials_are_refused_without_repeating_them() {
    let server = RedisServerOptions::default().directive("requirepass right").start();
    for credentials in ["", ":wr0ng", "somebody:wr0ng"] {
        let refused = refusal(RedisOptions::new(server.url_as(credentials))).await;
        assert!(matches!(refused, RefusedStore::Credentials { .. }), "{credentials}: {refused}");
        let message = refused.to_string();
        assert!(message.contains("user and password in the store URL"), "{message}");
        assert!(!message.contains("wr0ng"), "{message}");
    }
    works(&*connect(server.url_as(":right")).await).await;
}

#[tokio::test]
async fn the_database_number_counts_and_one_that_does_not_exist_is_refused() {
    let server = RedisServer::start();
    works(&*connect(format!("{}/3", server.url())).await).await;
    let elsewhere = connect(server.url()).await;
    assert_eq!(elsewhere.sessions(10).await.unwrap(), vec![]);
    let refused = refusal(RedisOptions::new(format!("{}/99", server.url()))).await;
    assert_eq!(refused, RefusedStore::Database { address: format!("127.0.0.1:{}", server.port()), db: 99 });
}

#[tokio::test]
async fn a_server_that_is_not_there_at_the_start_is_used_as_soon_as_it_is() {
    let port = free_port();
    let log = connect(format!("redis://127.0.0.1:{port}")).await;
    let StoreHealth::Down { reason } = log.health().borrow().clone() else { panic!("up without a server") };
    assert!(reason.contains(&format!("127.0.0.1:{port}")), "{reason}");
    let mut owner = Owner::new("s", "r");
    let begun = Instant::now();
    assert!(log.open_run(owner.opening()).await.is_err());
    assert!(log.follow(&owner.session).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(1), "callers fail at once, they do not wait for a connection");

    let _server = RedisServerOptions::default().start_on(port);
    until_health(&log, |health| *health == StoreHealth::Up).await;
    owner.open(&*log).await;
    works(&log).await;
}

#[tokio::test]
async fn a_replica_is_waited_for() {
    let primary = RedisServer::start();
    let replica = RedisServerOptions::default().directive(format!("replicaof 127.0.0.1 {}", primary.port())).start();
    let log = connect(replica.url()).await;
    let health = log.health().borrow().clone();
    assert!(matches!(&health, StoreHealth::Down { reason } if reason.contains("replica")), "{health:?}");
    let _: () = ::redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut replica.client().await).await.unwrap();
    until_health(&log, |health| *health == StoreHealth::Up).await;
    works(&log).await;
}

#[tokio::test]
async fn a_server_that_becomes_a_replica_is_noticed_by_its_refusal() {
    let (primary, server) = (RedisServer::start(), RedisServer::start());
    let log = connect(server.url()).await;
    let replicate = ::redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary.port()).to_owned();
    let _: () = replicate.query_async(&mut server.client().await).await.unwrap();
    assert!(log.open_run(Owner::new("s", "r").opening()).await.is_err());
    until_health(&log, |health| *health != StoreHealth::Up).await;
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_callers_stop_waiting_for_it() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    server.freeze();
    // Nobody asks anything: the pings notice.
    until_health(&log, |health| *health != StoreHealth::Up).await;
    let begun = Instant::now();
    assert!(log.append(owner.append(&["x"])).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(1));
    server.thaw();
    until_health(&log, |health| *health == StoreHealth::Up).await;
    owner.says(&*log, &["x"]).await;
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_stored_once() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    for text in ["a", "b", "c"] {
        let append = owner.append(&[text]);
        server.freeze();
        assert!(log.append(append.clone()).await.is_err(), "a frozen server does not answer");
        server.thaw();
        let answer = insist(async || log.append(append.clone()).await).await;
        let (Appended::Duplicate { last, .. } | Appended::Stored { last, .. }) = answer else { panic!("{answer:?}") };
        (owner.n, owner.tail) = (owner.n + 1, last);
        let again = log.append(append).await.unwrap();
        assert!(matches!(again, Appended::Duplicate { last: l, .. } if l == last), "{again:?}");
    }
    assert_eq!(data(&read_after(&*log, &owner.session, started).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let flush = ::redis::cmd("SCRIPT").arg("FLUSH").to_owned();
    let _: () = flush.query_async(&mut server.client().await).await.unwrap();
    owner.says(&*log, &["x"]).await;
}

#[tokio::test]
async fn a_full_server_refuses_an_append_before_any_effect_and_takes_it_later() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let mut client = server.client().await;
    let mut limit = async |bytes: u64| {
        let set = ::redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).to_owned();
        let _: () = set.query_async(&mut client).await.unwrap();
    };
    limit(1).await;
    let refused = log.append(owner.append(&["x"])).await.unwrap_err();
    assert!(refused.detail.contains("OOM"), "{refused}");
    let mut second = Owner::new("other", "r2");
    assert!(log.open_run(second.opening()).await.is_err());
    // What was there is still read, and a full store is not a store that is away.
    assert_eq!(read_after(&*log, &owner.session, Offset::ZERO).await.len(), 1);
    assert_eq!(*log.health().borrow(), StoreHealth::Up);
    limit(0).await;
    let (first, _) = owner.says(&*log, &["x"]).await;
    assert_eq!(first.seq, started.seq + 1);
    assert_eq!(second.open(&*log).await.seq, 1);
}

#[tokio::test]
async fn a_server_that_evicts_live_sessions_is_warned_about() {
    let server = RedisServerOptions::default().directive("maxmemory-policy allkeys-lru").start();
    let log = connect(server.url()).await;
    assert!(log.warnings().iter().any(|warning| warning.contains("allkeys-lru")), "{:?}", log.warnings());
}

#[tokio::test]
async fn a_closed_log_ends_its_followers_and_its_connections() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut following = log.follow(&Owner::new("s", "r").session).await.unwrap();
    log.close().await;
    let ended = tokio::time::timeout(PATIENCE, following.next()).await.unwrap();
    assert!(ended.is_none(), "{ended:?}");
    drop(log);
    let mut client = server.client().await;
    until(async || {
        let list: String = ::redis::cmd("CLIENT").arg("LIST").query_async(&mut client).await.unwrap();
        list.lines().count() == 1
    })
    .await;
}

#[tokio::test]
async fn a_server_is_steady_since_its_start_for_who_finds_it_at_once_and_since_its_return_for_others() {
    let mut server = RedisServer::start();
    until(async || connect(server.url()).await.steady_for() >= Duration::from_secs(2)).await;
    let log = connect(server.url()).await;
    assert!(log.steady_for() >= Duration::from_secs(2));

    server.kill();
    until_health(&log, |health| *health != StoreHealth::Up).await;
    assert_eq!(log.steady_for(), Duration::ZERO);
    let late = connect(server.url()).await;
    let returned = Instant::now();
    server.restart();
    for log in [&log, &late] {
        until_health(log, |health| *health == StoreHealth::Up).await;
        assert!(log.steady_for() <= returned.elapsed());
    }
}
