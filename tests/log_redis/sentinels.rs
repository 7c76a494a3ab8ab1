//! A primary that sentinels replace while sessions are written.

use sidestream::log::*;

use crate::actors::*;
use crate::redis_sentinel::RedisSentinel;

/// The log of the session.
const LOG: &str = "ss:{default:s}:log";

/// Waits until all servers have the same of the session, so that no failover loses anything.
async fn replicated(deployment: &RedisSentinel) {
    deployment.settled().await;
    until(async || {
        let mut lengths = Vec::new();
        for i in 0..3 {
            let mut client = deployment.server(i).client().await;
            lengths.push(::redis::cmd("XLEN").arg(LOG).query_async::<u64>(&mut client).await.unwrap());
        }
        lengths[0] > 0 && lengths.iter().all(|length| *length == lengths[0])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_at_the_primary_that_sentinels_name() {
    let deployment = RedisSentinel::start().await;
    let (here, there) = (connect(deployment.url()).await, connect(deployment.url()).await);
    let mut owner = Owner::new("s", "r");
    owner.open(&*here).await;
    owner.says(&*here, &["before"]).await;
    let mut reader = Reader::join(there.clone(), &owner.session).await;
    replicated(&deployment).await;
    // The old one goes on answering for a while: it is left because the sentinels say so.
    let left = async |log| until_health(log, |health| *health != StoreHealth::Up).await;
    let (new, ..) = tokio::join!(deployment.fail_over(), left(&here), left(&there));
    owner.insists(&*here, &["after"]).await;
    reader.until(3).await;
    assert_eq!(data(&reader.seen), ["before", "after"]);
    let mut client = deployment.server(new).client().await;
    let length: u64 = ::redis::cmd("XLEN").arg(LOG).query_async(&mut client).await.unwrap();
    assert_eq!(length, owner.n);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_primary_is_left_for_the_new_one_and_not_believed_when_it_thaws() {
    let mut deployment = RedisSentinel::start().await;
    let log = connect(deployment.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    replicated(&deployment).await;
    let old = deployment.primary().await;
    deployment.server_mut(old).freeze();
    until_health(&log, |health| *health != StoreHealth::Up).await;
    let new = deployment.another_than(old).await;
    owner.insists(&*log, &["to the new one"]).await;
    deployment.server_mut(old).thaw();
    owner.insists(&*log, &["still"]).await;
    let mut client = deployment.server(new).client().await;
    let length: u64 = ::redis::cmd("XLEN").arg(LOG).query_async(&mut client).await.unwrap();
    assert_eq!(length, owner.n);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_sentinel_disturbs_nobody_and_the_death_of_all_only_the_next_connection() {
    let mut deployment = RedisSentinel::start().await;
    let log = connect(deployment.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    deployment.sentinel_mut(0).kill();
    let other = connect(deployment.url()).await;
    owner.says(&*other, &["two sentinels are enough"]).await;
    deployment.sentinel_mut(1).kill();
    deployment.sentinel_mut(2).kill();
    owner.says(&*log, &["and none for who is connected"]).await;
    let lonely = connect(deployment.url()).await;
    let health = until_health(&lonely, |health| *health != StoreHealth::Up).await;
    assert!(format!("{health:?}").contains("no sentinel answers"), "{health:?}");
}
