//! Pushes between instances, and what happens when they are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sidestream::log::*;
use sidestream::session::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::actors::*;
use crate::redis_server::{RedisServer, RedisServerOptions};

#[tokio::test]
async fn what_one_instance_appends_is_pushed_to_the_other() {
    let server = RedisServer::start();
    let (here, there) = (connect(server.url()).await, connect(server.url()).await);
    let mut owner = Owner::new("s", "r");
    owner.open(&*here).await;
    let mut reader = Reader::join(there.clone(), &owner.session).await;
    for i in 1..=10_usize {
        let texts: Vec<String> = (0..i).map(|j| format!("text {i}.{j} ünï\n")).collect();
        let before = reader.pushed;
        owner.says(&*here, &texts).await;
        reader.until(reader.seen.len() + i).await;
        assert_eq!(reader.pushed, before + 1, "the push carried the entries");
    }
    owner.ends(&*here).await;
    reader.until(1 + 55 + 1).await;
    assert_eq!(reader.checks, 0);
    assert_eq!(reader.seen, read_after(&*here, &owner.session, Offset::ZERO).await);
}

#[tokio::test]
async fn an_append_too_large_to_push_is_announced() {
    let server = RedisServer::start();
    let (here, there) = (connect(server.url()).await, connect(server.url()).await);
    let mut owner = Owner::new("s", "r");
    owner.open(&*here).await;
    let mut near = Reader::join(here.clone(), &owner.session).await;
    let mut far = Reader::join(there, &owner.session).await;
    owner.says(&*here, &["x".repeat(100 << 10)]).await;
    near.until(2).await;
    far.until(2).await;
    assert_eq!((far.pushed, far.checks), (0, 1));
    assert_eq!(near.seen, far.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_two_instances_keep_one_contiguous_log_and_every_reader_sees_it() {
    let server = RedisServer::start();
    let logs = [connect(server.url()).await, connect(server.url()).await];
    let mut owners: Vec<Owner> = (0..4).map(|i| Owner::new("s", &format!("r{i}"))).collect();
    for owner in &mut owners {
        owner.open(&*logs[0]).await;
        // These owners do not tell each other what they have seen.
        owner.tail = Offset::ZERO;
    }
    let session = owners[0].session.clone();
    let mut readers = Vec::new();
    for log in &logs {
        readers.push(Reader::join(log.clone(), &session).await);
    }
    let mut writing = tokio::task::JoinSet::new();
    for (i, mut owner) in owners.into_iter().enumerate() {
        let log = logs[i % 2].clone();
        writing.spawn(async move {
            for n in 0..100 {
                owner.says(&*log, &[format!("{}-{n}", owner.run)]).await;
            }
        });
    }
    for reader in &mut readers {
        reader.until(4 + 400).await;
    }
    writing.join_all().await;
    let all = read_after(&*logs[0], &session, Offset::ZERO).await;
    assert_contiguous(Offset::ZERO, &all);
    assert_eq!(all.len(), 404);
    for reader in readers {
        assert_eq!(reader.seen, all);
    }
}

#[tokio::test]
async fn a_lost_pubsub_connection_is_rebuilt_and_nothing_is_missed() {
    let server = RedisServer::start();
    let (here, there) = (connect(server.url()).await, connect(server.url()).await);
    let mut owner = Owner::new("s", "r");
    owner.open(&*here).await;
    let mut reader = Reader::join(there, &owner.session).await;
    let mut client = server.client().await;
    for i in 1..=3 {
        let kill = ::redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").to_owned();
        let killed: u64 = kill.query_async(&mut client).await.unwrap();
        assert!(killed > 0);
        owner.says(&*here, &[format!("while deaf {i}")]).await;
        reader.until(1 + i).await;
    }
    assert!(reader.checks > 0, "whoever may have missed something is told to read");
    assert_eq!(reader.seen, read_after(&*here, &owner.session, Offset::ZERO).await);
}

#[tokio::test]
async fn followers_of_a_session_share_one_subscription_that_ends_with_the_last() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let session = Owner::new("s", "r").session;
    let mut client = server.client().await;
    let mut subscriptions = async || {
        let ask = ::redis::cmd("PUBSUB").arg("NUMSUB").arg("ss:{default:s}:ch").to_owned();
        let (_, count): (String, u64) = ask.query_async(&mut client).await.unwrap();
        count
    };
    let first = log.follow(&session).await.unwrap();
    let second = log.follow(&session).await.unwrap();
    assert_eq!(subscriptions().await, 1);
    drop(first);
    let third = log.follow(&session).await.unwrap();
    assert_eq!(subscriptions().await, 1);
    drop((second, third));
    until(async || subscriptions().await == 0).await;
    let _again = log.follow(&session).await.unwrap();
    assert_eq!(subscriptions().await, 1);
}

/// Forwards to `port`; what the server sends on subscribed connections is swallowed while `deaf`.
async fn forwarder(port: u16, deaf: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let subscribed = Arc::new(AtomicBool::new(false));
            let (deaf, pubsub) = (deaf.clone(), subscribed.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                    if buffer[..n].windows(9).any(|window| window == b"SUBSCRIBE") {
                        subscribed.store(true, Ordering::SeqCst);
                    }
                    if to_server.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                    if pubsub.load(Ordering::SeqCst) && deaf.load(Ordering::SeqCst) {
                        continue;
                    }
                    if to_client.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    local
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_silently_dead_is_found_out_and_rebuilt() {
    let server = RedisServer::start();
    let deaf = Arc::new(AtomicBool::new(false));
    let port = forwarder(server.port(), deaf.clone()).await;
    let (here, there) = (connect(server.url()).await, connect(format!("redis://127.0.0.1:{port}")).await);
    let mut owner = Owner::new("s", "r");
    owner.open(&*here).await;
    let mut reader = Reader::join(there.clone(), &owner.session).await;

    deaf.store(true, Ordering::SeqCst);
    owner.says(&*here, &["unheard"]).await;
    assert_eq!(*there.health().borrow(), StoreHealth::Up, "the command connection is fine");
    // The network heals once the dead connection was given up: nobody tells the listener.
    let mut client = server.client().await;
    let healing = async {
        until(async || {
            let ask = ::redis::cmd("PUBSUB").arg("CHANNELS").arg("ss:probe:*").to_owned();
            let probes: Vec<String> = ask.query_async(&mut client).await.unwrap();
            probes.len() < 2
        })
        .await;
        deaf.store(false, Ordering::SeqCst);
    };
    tokio::join!(reader.until(2), healing);
    assert!(reader.checks > 0);
    owner.says(&*here, &["heard"]).await;
    reader.until(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_kills_subscribers_for_pushes_over_its_buffer_limit_costs_time_and_loses_nothing() {
    let server = RedisServerOptions::default().directive("client-output-buffer-limit pubsub 8kb 8kb 0").start();
    let (here, there) = (connect(server.url()).await, connect(server.url()).await);
    let mut owner = Owner::new("s", "r");
    owner.open(&*here).await;
    let mut reader = Reader::join(there, &owner.session).await;
    let large = "x".repeat(60_000);
    for _ in 0..5 {
        owner.says(&*here, &[&large]).await;
        reader.until(usize::try_from(owner.n).unwrap()).await;
    }
    assert!(reader.checks > 0, "a push of this size was delivered: the limit does not hold");
}

/// The symptom: channels know no databases, so that one session got what another of the same name was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_one_name_in_two_databases_hear_nothing_of_each_other() {
    let server = RedisServer::start();
    let (here, there) = (connect(format!("{}/0", server.url())).await, connect(format!("{}/3", server.url())).await);
    let (mut owner, mut other) = (Owner::new("s", "r"), Owner::new("s", "other"));
    let mut reader = Reader::join(there.clone(), &other.session).await;
    owner.open(&*here).await;
    owner.says(&*here, &["not for you"]).await;
    other.open(&*there).await;
    other.says(&*there, &["for you"]).await;
    reader.until(2).await;
    assert_eq!(data(&reader.seen), ["for you"]);
    let mut client = server.client().await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    assert!(keys.iter().any(|key| key.contains("run:r")), "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains("other")), "database 3 has its own: {keys:?}");
}
