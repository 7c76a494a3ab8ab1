//! The faults as tests: the quick ones with all other tests, all of them for `scripts/faults`.

use crate::fault::FAULTS;
use crate::row::HEADER;
use crate::scale::Scale;
use crate::scene::play;

/// Plays one fault; what does not hold is said.
async fn holds(name: &str) {
    let fault = FAULTS.iter().find(|fault| fault.name == name).unwrap();
    assert!(fault.quick, "too long to be played with the other tests");
    let row = play(fault, Scale::QUICK).await;
    assert!(row.holds(), "{HEADER}\n{row}\n{}", row.breaches.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_twice_while_nothing_fails() {
    holds("none").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_twice_when_redis_is_killed_and_comes_back() {
    holds("redis-killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_twice_when_redis_is_emptied() {
    holds("flushed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_sidecar_that_is_killed_are_interrupted_and_its_subscribers_go_on_at_the_other() {
    holds("sidecar-killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_that_loses_a_tail_everything_is_there_again_and_every_subscriber_hears_it() {
    holds("sentinel-tail-lost").await;
}

/// `FAULTS`: names, separated by blanks; all where it is empty or missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: scripts/faults plays it"]
async fn every_fault() {
    let named = std::env::var("FAULTS").unwrap_or_default();
    let named: Vec<&str> = named.split_whitespace().collect();
    for name in &named {
        assert!(FAULTS.iter().any(|fault| fault.name == *name), "no fault is called {name}");
    }
    let (scale, mut broken) = (Scale::from_env(), Vec::new());
    println!("{HEADER}");
    for fault in FAULTS.iter().filter(|fault| named.is_empty() || named.contains(&fault.name)) {
        let row = play(fault, scale).await;
        println!("{row}");
        if let Some(after) = row.ended_after {
            eprintln!("{}: the last run of the dead sidecar was seen to end after {after:?}", fault.name);
        }
        if !row.holds() {
            eprintln!("{} ({}) does not hold:\n  {}", fault.name, fault.what, row.breaches.join("\n  "));
            broken.push(fault.name);
        }
    }
    assert!(broken.is_empty(), "invariants do not hold under {broken:?}");
}

#[test]
#[ignore = "for scripts/faults --list"]
fn which_faults_there_are() {
    for fault in FAULTS {
        println!("| `{}` | {:?} | {} |", fault.name, fault.deployment, fault.what);
    }
}
