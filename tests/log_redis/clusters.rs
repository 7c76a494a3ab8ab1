//! A cluster that is divided anew while sessions are written and followed.

use std::cell::Cell;

use sidestream::log::*;

use crate::actors::*;
use crate::redis_cluster::{ClusterFailover, RedisCluster};

/// An owner writes, and a reader at another instance hears it, while `happens` happens to the slot of their
/// session. Afterwards the reader has exactly what was written, and hears pushes again.
async fn undisturbed(cluster: &mut RedisCluster, happens: impl AsyncFnOnce(&mut RedisCluster, u16)) {
    let (here, there) = (connect(cluster.url()).await, connect(cluster.url()).await);
    let slot = cluster.slot_of("ss:{default:s}:log").await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*here).await;
    let mut reader = Reader::join(there.clone(), &owner.session).await;
    let stop = Cell::new(false);
    let happening = async {
        while owner.n < 20 {
            owner.insists(&*here, &["before"]).await;
        }
        let happens = async {
            happens(cluster, slot).await;
            stop.set(true);
        };
        let writes = async {
            while !stop.get() {
                owner.insists(&*here, &["meanwhile"]).await;
            }
        };
        tokio::join!(happens, writes);
    };
    let reading = async {
        // Whatever the reader hears is checked for contiguity.
        loop {
            reader.hear().await;
        }
    };
    tokio::select! {
        () = happening => {}
        () = reading => unreachable!("it hears for ever"),
    }
    reader.until(usize::try_from(owner.n).unwrap()).await;
    assert_eq!(data(&reader.seen).len() as u64, owner.n - 1, "nothing twice");
    // Pushes come again from wherever the slot is now, without anybody asking for a check.
    until(async || {
        let (pushed, wanted) = (reader.pushed, reader.seen.len() + 1);
        owner.insists(&*here, &["after"]).await;
        reader.until(wanted).await;
        reader.pushed > pushed
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_written_and_heard_while_its_slot_moves_to_another_server_and_back() {
    let mut cluster = RedisCluster::start().await;
    undisturbed(&mut cluster, async |cluster, slot| {
        let from = cluster.primary_of(slot).await;
        let to = (0..3).find(|node| *node != from).unwrap();
        cluster.migrate_slot(slot, to).await;
        cluster.settled().await;
        cluster.migrate_slot(slot, from).await;
        cluster.settled().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_written_and_heard_while_a_replica_becomes_the_primary_of_its_slot() {
    let mut cluster = RedisCluster::start().await;
    undisturbed(&mut cluster, async |cluster, slot| {
        cluster.fail_over(slot, ClusterFailover::Coordinated).await;
        cluster.settled().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_written_and_heard_after_the_death_of_the_primary_of_its_slot() {
    let mut cluster = RedisCluster::start().await;
    undisturbed(&mut cluster, async |cluster, slot| {
        let dead = cluster.primary_of(slot).await;
        cluster.node_mut(dead).kill();
        until(async || cluster.primary_of(slot).await != dead).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_the_server_kills_is_made_again_and_owes_a_check() {
    let mut cluster = RedisCluster::start().await;
    undisturbed(&mut cluster, async |cluster, slot| {
        let mut client = cluster.node(cluster.primary_of(slot).await).client().await;
        for _ in 0..5 {
            let kill = ::redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").to_owned();
            let _: i64 = kill.query_async(&mut client).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_server_shows_in_the_health_until_another_has_its_slots() {
    let mut cluster = RedisCluster::start().await;
    let log = connect(cluster.url()).await;
    until_health(&log, |health| *health == StoreHealth::Up).await;
    let slot = cluster.slot_of("ss:{default:s}:log").await;
    let dead = cluster.primary_of(slot).await;
    cluster.node_mut(dead).kill();
    until_health(&log, |health| *health != StoreHealth::Up).await;
    until_health(&log, |health| *health == StoreHealth::Up).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
}

/// The symptom: a call went back and forth between the two as fast as they could answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_send_callers_to_each_other_are_asked_with_pauses() {
    let cluster = RedisCluster::start().await;
    let log = connect(cluster.url()).await;
    let owner = Owner::new("s", "r");
    let slot = cluster.slot_of("ss:{default:s}:log").await;
    let from = cluster.primary_of(slot).await;
    let to = (0..3).find(|node| *node != from).unwrap();
    cluster.disown(slot, from, to).await;
    log.append(owner.append(&["a"])).await.expect_err("nobody has it");
    let mut refusals = 0;
    for node in [from, to] {
        let mut client = cluster.node(node).client().await;
        let stats: String = ::redis::cmd("INFO").arg("errorstats").query_async(&mut client).await.unwrap();
        let moved = stats.lines().find_map(|line| line.trim_end().strip_prefix("errorstat_MOVED:count="));
        refusals += moved.map_or(0, |count| count.parse::<u32>().unwrap());
    }
    assert!((2..1000).contains(&refusals), "{refusals} times");
    // Whose it is becomes clear.
    cluster.end_migration(slot, from, to).await;
    let answer = insist(async || log.append(owner.append(&["a"])).await).await;
    assert_eq!(answer, Appended::Closed(Closed::Unknown));
}
