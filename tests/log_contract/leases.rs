//! Leases of instances, and how the dead are found.

use std::time::{Duration, Instant};

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

const LEASE: Duration = Duration::from_millis(1000);

/// Renews and sweeps as a living instance does, until `done` says so of what was found dead.
async fn sweep_until(log: &dyn Log, by: &InstanceId, mut done: impl FnMut(&[DeadInstance]) -> bool) {
    let sweeping = async {
        loop {
            assert_eq!(log.renew(by, LEASE).await.unwrap(), Renewal::Alive { commands: vec![] });
            if done(&log.sweep(by).await.unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, sweeping).await.unwrap();
}

async fn who_stops_renewing_is_found_dead_with_its_runs_and_may_do_nothing_more(store: Store) {
    let log = store.open().await;
    let (victim, sweeper) = (instance("victim"), instance("sweeper"));
    let (s, kept, ended) = (session("s"), run_id("kept"), run_id("ended"));
    assert_eq!(log.renew(&victim, LEASE).await.unwrap(), Renewal::Alive { commands: vec![] });
    let renewed = Instant::now();
    for run in [&kept, &ended] {
        assert!(log.enlist(&victim, &s, run).await.unwrap());
    }
    log.unlist(&victim, &s, &ended).await.unwrap();

    let mut found = None;
    sweep_until(&*log, &sweeper, |dead| {
        assert!(dead.iter().all(|dead| dead.instance == victim), "only the victim is dead: {dead:?}");
        found = dead.first().cloned();
        found.is_some()
    })
    .await;

    assert!(renewed.elapsed() >= LEASE + Duration::from_millis(500), "absent twice, half a second apart");
    assert_eq!(found.unwrap().runs, vec![(s.clone(), kept.clone())]);
    assert_eq!(log.renew(&victim, LEASE).await.unwrap(), Renewal::Dead);
    assert!(!log.enlist(&victim, &s, &run_id("one-more")).await.unwrap());
    assert_eq!(log.renew(&victim, LEASE).await.unwrap(), Renewal::Dead, "the dead stay dead");
}

async fn who_has_died_or_resigned_is_known_to_be_dead_and_nobody_else_is(store: Store) {
    let log = store.open().await;
    let (me, victim, leaver) = (instance("me"), instance("victim"), instance("leaver"));
    for one in [&me, &victim, &leaver] {
        log.renew(one, LEASE).await.unwrap();
        assert!(!log.is_dead(one).await.unwrap());
    }
    log.resign(&leaver).await.unwrap();
    assert!(log.is_dead(&leaver).await.unwrap());
    sweep_until(&*log, &me, |dead| dead.iter().any(|dead| dead.instance == victim)).await;
    assert!(log.is_dead(&victim).await.unwrap());
    assert!(!log.is_dead(&me).await.unwrap());
}

async fn the_dead_are_found_until_their_runs_are_unlisted(store: Store) {
    let log = store.open().await;
    let (victim, first, second) = (instance("victim"), instance("first"), instance("second"));
    let (s, run) = (session("s"), run_id("r"));
    log.renew(&victim, LEASE).await.unwrap();
    assert!(log.enlist(&victim, &s, &run).await.unwrap());
    sweep_until(&*log, &first, |dead| !dead.is_empty()).await;
    // The first sweeper died before it could take the run over.
    log.resign(&first).await.unwrap();
    sweep_until(&*log, &second, |dead| dead.iter().any(|dead| dead.instance == victim && !dead.runs.is_empty())).await;
    log.unlist(&victim, &s, &run).await.unwrap();
    let mut quiet = 0;
    sweep_until(&*log, &second, |dead| {
        quiet = if dead.iter().any(|dead| !dead.runs.is_empty()) { 0 } else { quiet + 1 };
        quiet == 10
    })
    .await;
}

async fn who_keeps_renewing_is_never_found_dead(store: Store) {
    let log = store.open().await;
    let (busy, sweeper) = (instance("busy"), instance("sweeper"));
    assert_eq!(log.renew(&busy, LEASE).await.unwrap(), Renewal::Alive { commands: vec![] });
    assert!(log.enlist(&busy, &session("s"), &run_id("r")).await.unwrap());
    let begun = Instant::now();
    while begun.elapsed() < LEASE * 3 {
        for living in [&busy, &sweeper] {
            assert_eq!(log.renew(living, LEASE).await.unwrap(), Renewal::Alive { commands: vec![] });
        }
        assert_eq!(log.sweep(&sweeper).await.unwrap(), vec![]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn who_resigned_is_never_found_dead(store: Store) {
    let log = store.open().await;
    let (leaver, marker, sweeper) = (instance("leaver"), instance("marker"), instance("sweeper"));
    log.renew(&leaver, LEASE).await.unwrap();
    assert!(log.enlist(&leaver, &session("s"), &run_id("r")).await.unwrap());
    log.unlist(&leaver, &session("s"), &run_id("r")).await.unwrap();
    log.resign(&leaver).await.unwrap();
    // Who dies after it is found, so it would have been found as well.
    log.renew(&marker, LEASE).await.unwrap();
    assert!(log.enlist(&marker, &session("s"), &run_id("r2")).await.unwrap());
    sweep_until(&*log, &sweeper, |dead| {
        assert!(dead.iter().all(|dead| dead.instance != leaver));
        dead.iter().any(|dead| dead.instance == marker)
    })
    .await;
}

async fn enlisting_and_unlisting_may_be_repeated(store: Store) {
    let log = store.open().await;
    let me = instance("me");
    let (s, run) = (session("s"), run_id("r"));
    assert_eq!(log.renew(&me, LEASE).await.unwrap(), Renewal::Alive { commands: vec![] });
    for _ in 0..2 {
        assert!(log.enlist(&me, &s, &run).await.unwrap());
    }
    for _ in 0..2 {
        log.unlist(&me, &s, &run).await.unwrap();
    }
    assert!(log.enlist(&me, &s, &run).await.unwrap());
}

async fn who_listed_a_run_and_never_renewed_is_found_dead(store: Store) {
    let log = store.open().await;
    let (stillborn, sweeper) = (instance("stillborn"), instance("sweeper"));
    assert!(log.enlist(&stillborn, &session("s"), &run_id("r")).await.unwrap());
    sweep_until(&*log, &sweeper, |dead| dead.iter().any(|dead| dead.instance == stillborn)).await;
}

async fn a_run_is_listed_until_it_is_unlisted_whoever_lists_it(store: Store) {
    let log = store.open().await;
    let (owner, other, sweeper) = (instance("owner"), instance("other"), instance("sweeper"));
    let (s, run) = (session("s"), run_id("r"));
    let is_listed = async || log.is_listed(&owner, &s, &run).await.unwrap();
    log.renew(&owner, LEASE).await.unwrap();
    assert!(!is_listed().await);
    for lister in [&owner, &other] {
        assert!(log.enlist(lister, &s, &run).await.unwrap());
        assert!(is_listed().await);
        assert!(!log.is_listed(lister, &s, &run_id("another")).await.unwrap());
        assert!(!log.is_listed(lister, &session("elsewhere"), &run).await.unwrap());
        log.unlist(lister, &s, &run).await.unwrap();
        assert!(!is_listed().await);
    }
    assert!(log.enlist(&owner, &s, &run).await.unwrap());
    sweep_until(&*log, &sweeper, |dead| dead.iter().any(|dead| dead.instance == owner)).await;
    assert!(is_listed().await, "whoever sweeps still has to look after it");
}

async fn a_store_that_works_is_steady_and_grows_steadier(store: Store) {
    let log = store.open().await;
    let first = log.steady_for();
    let begun = Instant::now();
    tokio::time::timeout(PATIENCE, async {
        while log.steady_for() < first.saturating_add(begun.elapsed()) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

on_every_store!(
    who_listed_a_run_and_never_renewed_is_found_dead,
    a_run_is_listed_until_it_is_unlisted_whoever_lists_it,
    a_store_that_works_is_steady_and_grows_steadier,
    who_stops_renewing_is_found_dead_with_its_runs_and_may_do_nothing_more,
    who_has_died_or_resigned_is_known_to_be_dead_and_nobody_else_is,
    the_dead_are_found_until_their_runs_are_unlisted,
    who_keeps_renewing_is_never_found_dead,
    who_resigned_is_never_found_dead,
    enlisting_and_unlisting_may_be_repeated,
);
