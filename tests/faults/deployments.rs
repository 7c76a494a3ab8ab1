//! The deployments that the faults happen in do what they claim: a suite on a cluster that fails
//! over nothing would prove nothing.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{AsyncCommands, cmd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    ClusterFailover, FaultProxy, RedisCluster, RedisClusterOptions, RedisSentinel, RedisSentinelOptions, RedisServer,
    RedisServerOptions, Towards, until, within,
};

/// A server that says what it hears.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    port
}

/// Whether a byte comes back, while nothing is wrong.
async fn echoes(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    let mut byte = [0];
    within("the echo", stream.read_exact(&mut byte)).await.map(drop)
}

#[tokio::test]
async fn the_proxy_forwards_cuts_freezes_delays_and_leads_elsewhere() {
    let proxy = FaultProxy::to(echo().await).await;
    let connect = async || TcpStream::connect(("127.0.0.1", proxy.port())).await;
    let mut stream = connect().await.unwrap();
    echoes(&mut stream).await.unwrap();

    proxy.cut();
    assert!(echoes(&mut stream).await.is_err());
    until("a refusal", async || connect().await.err()).await;
    proxy.heal();
    let mut stream = until("a connection", async || connect().await.ok()).await;
    echoes(&mut stream).await.unwrap();

    proxy.freeze();
    stream.write_all(b"y").await.unwrap();
    let mut byte = [0];
    let silent = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut byte)).await;
    assert!(silent.is_err(), "something came through");
    proxy.heal();
    within("what was held", stream.read_exact(&mut byte)).await.unwrap();
    assert_eq!(&byte, b"y");

    proxy.delay(Towards::Server, Duration::from_millis(60));
    proxy.delay(Towards::Client, Duration::from_millis(40));
    let begun = Instant::now();
    echoes(&mut stream).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());

    let other = RedisServer::start();
    proxy.retarget(other.port());
    assert!(echoes(&mut stream).await.is_err());
    let mut client = redis::Client::open(proxy.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let _: () = client.set("a", 1).await.unwrap();
}

#[tokio::test]
async fn a_cluster_fails_over_and_moves_slots() {
    let mut cluster = RedisCluster::start().await;
    let slot = cluster.slot_of("k").await;
    let old = cluster.primary_of(slot).await;
    let _: () = cluster.node(old).client().await.set("k", "v").await.unwrap();

    let promoted = cluster.fail_over(slot, ClusterFailover::Coordinated).await;
    assert_ne!(promoted, old);
    cluster.settled().await;

    let elsewhere = (0..3).find(|i| *i != old).unwrap();
    cluster.migrate_slot(slot, elsewhere).await;
    assert_eq!(cluster.primary_of(slot).await, elsewhere);
    let value: String = cluster.node(elsewhere).client().await.get("k").await.unwrap();
    assert_eq!(value, "v");

    cluster.settled().await;
    let replica = cluster.replica_of(slot).await;
    cluster.node_mut(elsewhere).kill();
    let promoted = until("a failover by timeout", async || {
        let now = cluster.primary_of(slot).await;
        (now != elsewhere).then_some(now)
    })
    .await;
    assert_eq!(promoted, replica);
    cluster.node_mut(elsewhere).restart();
    cluster.settled().await;
}

#[tokio::test]
async fn a_replica_that_is_promoted_in_a_cluster_can_lack_a_tail_and_be_behind_in_time() {
    let ahead = Duration::from_secs(90);
    let mut cluster = RedisClusterOptions::default().clock_ahead(ahead).start().await;
    let slot = cluster.slot_of("k").await;
    let old = cluster.primary_of(slot).await;
    assert!(time_of(cluster.node(old)).await >= now() + 89);
    let mut client = cluster.node(old).client().await;
    let _: () = client.set("k", "kept").await.unwrap();
    let _: usize = cmd("WAIT").arg(1).arg(5000).query_async(&mut client).await.unwrap();
    cluster.node(old).withhold_from_replicas().await;
    let _: () = client.set("k", "lost").await.unwrap();
    cluster.node_mut(old).kill();
    let promoted = cluster.fail_over(slot, ClusterFailover::Takeover).await;
    let value: String = cluster.node(promoted).client().await.get("k").await.unwrap();
    assert_eq!(value, "kept");
    assert!(time_of(cluster.node(promoted)).await <= now() + 1);
}

#[tokio::test]
async fn sentinels_promote_a_replica_when_asked_and_when_the_primary_is_gone() {
    let mut redis = RedisSentinel::start().await;
    assert_eq!(redis.primary().await, 0);
    let second = redis.fail_over().await;
    redis.settled().await;

    let _: () = redis.server(second).client().await.set("k", "v").await.unwrap();
    let _: usize = cmd("WAIT").arg(2).arg(5000).query_async(&mut redis.server(second).client().await).await.unwrap();
    redis.server_mut(second).kill();
    let third = redis.another_than(second).await;
    let value: String = redis.server(third).client().await.get("k").await.unwrap();
    assert_eq!(value, "v");
    redis.server_mut(second).restart();
    redis.settled().await;
}

#[tokio::test]
async fn a_replica_that_sentinels_promote_can_lack_a_tail_and_be_behind_in_time() {
    let mut redis = RedisSentinelOptions::default().clock_ahead(Duration::from_secs(90)).start().await;
    assert!(time_of(redis.server(0)).await >= now() + 89);
    let mut client = redis.server(0).client().await;
    let _: () = client.set("k", "kept").await.unwrap();
    let _: usize = cmd("WAIT").arg(2).arg(5000).query_async(&mut client).await.unwrap();
    redis.server(0).withhold_from_replicas().await;
    let _: () = client.set("k", "lost").await.unwrap();
    redis.server_mut(0).kill();
    let promoted = redis.another_than(0).await;
    let value: String = redis.server(promoted).client().await.get("k").await.unwrap();
    assert_eq!(value, "kept");
    assert!(time_of(redis.server(promoted)).await <= now() + 1);
}

#[tokio::test]
async fn the_oldest_redis_is_6_2() {
    let server = RedisServerOptions::default().version_6_2().start();
    let info: String = cmd("INFO").arg("server").query_async(&mut server.client().await).await.unwrap();
    assert!(info.contains("redis_version:6.2."), "{info}");
}

async fn time_of(server: &RedisServer) -> u64 {
    let (seconds, _): (u64, u64) = cmd("TIME").query_async(&mut server.client().await).await.unwrap();
    seconds
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
