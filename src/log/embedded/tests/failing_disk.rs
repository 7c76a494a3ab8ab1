//! A disk that is full, fails, or loses its power.

use std::time::Duration;

use tokio::time::timeout;

use super::backend::Disk;
use super::*;
use crate::log::{PageLimits, Push, Read, StoreHealth, Unavailable};

const PATIENCE: Duration = Duration::from_secs(20);

async fn texts(log: &EmbeddedLog) -> Result<Vec<String>, Unavailable> {
    let session = session();
    match log.read(&session, Offset::ZERO, PageLimits::default()).await? {
        Read::Page(page) => Ok(page.entries.iter().skip(1).map(|entry| entry.record.data.to_string()).collect()),
        other => panic!("{other:?}"),
    }
}

/// Repeats a read until it is answered.
async fn until_readable(log: &EmbeddedLog) -> Vec<String> {
    let repeating = async {
        loop {
            match texts(log).await {
                Ok(texts) => return texts,
                Err(Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, repeating).await.unwrap()
}

/// Repeats an append until its answer is definite, as every caller of a log does.
async fn until_definite(log: &EmbeddedLog, append: Append) -> Appended {
    let repeating = async {
        loop {
            match log.append(append.clone()).await {
                Ok(answer) => return answer,
                Err(Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, repeating).await.unwrap()
}

#[tokio::test]
async fn on_a_full_disk_appends_are_unknown_and_the_log_says_why_until_there_is_room() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    let mut health = log.health();
    open_run(&log).await;
    stored(log.append(event(2, "before")).await.unwrap());

    disk.fails_after(0);
    let refused = log.append(event(3, "during")).await.unwrap_err();
    assert!(refused.detail.contains("no space left"), "{refused}");
    let down = timeout(PATIENCE, health.wait_for(|health| *health != StoreHealth::Up)).await.unwrap().unwrap().clone();
    assert!(matches!(&down, StoreHealth::Down { reason } if reason.contains("no space left")), "{down:?}");

    disk.works();
    timeout(PATIENCE, health.wait_for(|health| *health == StoreHealth::Up)).await.unwrap().unwrap();
    assert_eq!(texts(&log).await.unwrap(), ["before"]);
    assert_eq!(stored(until_definite(&log, event(3, "during")).await).seq, 3);
    assert_eq!(texts(&log).await.unwrap(), ["before", "during"]);
}

#[tokio::test]
async fn while_the_disk_is_full_the_log_can_be_read() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    let mut health = log.health();
    open_run(&log).await;
    stored(log.append(event(2, "before")).await.unwrap());
    // Enough to open the database again, not to write to it.
    for _ in 0..3 {
        disk.fails_after(0);
        log.append(event(3, "during")).await.unwrap_err();
        disk.works();
        assert_eq!(until_readable(&log).await, ["before"]);
    }
    timeout(PATIENCE, health.wait_for(|health| *health == StoreHealth::Up)).await.unwrap().unwrap();
}

#[tokio::test]
async fn after_a_read_that_failed_the_log_recovers_without_any_write() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    open_run(&log).await;
    let long = "x".repeat(10_000);
    for n in 2..30 {
        stored(log.append(event(n, &long)).await.unwrap());
    }
    log.close().await;

    // A log that does not have the entries in memory, and whose writer has nothing more to do.
    let log = open(&disk, |options| options.sweep_every = Duration::from_secs(3600));
    log.claim("key", "value".into()).await.unwrap();
    disk.cannot_read(1);
    let refused = texts(&log).await.expect_err("the entry is read from the disk");
    assert!(refused.detail.contains("bad sector"), "{refused}");
    assert_eq!(until_readable(&log).await[0], long);
}

#[tokio::test]
async fn wherever_a_disk_fails_in_a_commit_nothing_acknowledged_is_lost_and_nothing_is_stored_twice() {
    let mut failures = 0;
    for calls in 0.. {
        let disk = Disk::new();
        let log = open(&disk, |_| {});
        open_run(&log).await;
        stored(log.append(event(2, "before")).await.unwrap());
        disk.fails_after(calls);
        let first = log.append(event(3, "during")).await;
        disk.works();
        let answer = until_definite(&log, event(3, "during")).await;
        let known = matches!(answer, Appended::Stored { .. } | Appended::Duplicate { .. });
        assert!(known, "after {calls} calls: {answer:?}");
        stored(until_definite(&log, event(4, "after")).await);
        assert_eq!(texts(&log).await.unwrap(), ["before", "during", "after"], "after {calls} calls");
        log.close().await;
        if first.is_ok() {
            break;
        }
        failures += 1;
    }
    assert!(failures > 3, "a commit is more than {failures} calls");
}

#[tokio::test]
async fn what_is_acknowledged_survives_a_power_cut() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    open_run(&log).await;
    for n in 2..30 {
        stored(log.append(event(n, &format!("text-{n}"))).await.unwrap());
        let restarted = open(&disk.after_a_power_cut(), |_| {});
        let expected: Vec<String> = (2..=n).map(|n| format!("text-{n}")).collect();
        let mut found = texts(&restarted).await.unwrap();
        let end = found.pop().unwrap();
        assert_eq!(found, expected);
        assert!(end.contains(r#""reason":"restart","events":"#), "{end}");
        restarted.close().await;
    }
}

#[tokio::test]
async fn a_follower_is_told_to_look_after_a_failure_for_what_was_committed_is_not_known() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    open_run(&log).await;
    let mut following = log.follow(&session()).await.unwrap();
    disk.fails_after(1);
    log.append(event(2, "unknown")).await.unwrap_err();
    disk.works();
    let push = timeout(PATIENCE, following.next()).await.unwrap();
    assert!(matches!(push, Some(Push::Check)), "{push:?}");
}

#[tokio::test]
async fn what_waits_during_a_commit_shares_the_next_one() {
    let disk = Disk::new();
    let log = open(&disk, |options| options.sweep_every = Duration::from_secs(3600));
    open_run(&log).await;
    let before = disk.syncs();
    let appends = (0..200).map(|i| {
        let session = SessionId::parse(&format!("s-{i}")).unwrap();
        log.append(Append { session, ..written("p", 1, "hello") })
    });
    for answer in futures_util::future::join_all(appends).await {
        stored(answer.unwrap());
    }
    let commits = disk.syncs() - before;
    assert!(commits < 20, "{commits} commits for 200 appends at once");
}

#[tokio::test]
async fn an_answer_that_changes_nothing_costs_no_commit() {
    let disk = Disk::new();
    let log = open(&disk, |options| options.sweep_every = Duration::from_secs(3600));
    open_run(&log).await;
    stored(log.append(event(2, "a")).await.unwrap());
    let before = disk.syncs();
    for _ in 0..10 {
        assert!(matches!(log.append(event(2, "a")).await.unwrap(), Appended::Duplicate { .. }));
        assert!(matches!(log.append(event(9, "x")).await.unwrap(), Appended::Gap { expected: 3 }));
    }
    assert_eq!(disk.syncs(), before);
}

#[tokio::test]
async fn a_closed_log_says_so() {
    let log = open(&Disk::new(), |_| {});
    open_run(&log).await;
    log.close().await;
    log.close().await;
    assert_eq!(log.append(event(2, "late")).await.unwrap_err().detail, "the log is closed");
    assert_eq!(texts(&log).await.unwrap_err().detail, "the log is closed");
    assert!(matches!(&*log.health().borrow(), StoreHealth::Down { .. }));
}
