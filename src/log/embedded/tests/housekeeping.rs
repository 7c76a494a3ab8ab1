//! What is removed, and when: as the tables show it.

use redb::{ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};

use super::backend::Disk;
use super::*;
use crate::log::embedded::batch::Batch;
use crate::log::embedded::retention::Sweeper;
use crate::log::embedded::tables::{CLAIMS, ENTRIES, FORMAT, GARBAGE, PRODUCERS, RUNS, SESSIONS, TOMBS, UNBORN};
use crate::log::embedded::writer::now_ms;
use crate::log::{Bounds, Takeover};
use crate::session::Terminal;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// How many rows the tables have, once nothing changes any more.
fn rows(disk: &Disk) -> [(&'static str, u64); 7] {
    let database = database::on(disk.clone(), CACHE_BYTES).unwrap();
    let read = database.begin_read().unwrap();
    [
        ("entries", read.open_table(ENTRIES).unwrap().len().unwrap()),
        ("sessions", read.open_table(SESSIONS).unwrap().len().unwrap()),
        ("runs", read.open_table(RUNS).unwrap().len().unwrap()),
        ("unborn", read.open_table(UNBORN).unwrap().len().unwrap()),
        ("producers", read.open_table(PRODUCERS).unwrap().len().unwrap()),
        ("tombs", read.open_table(TOMBS).unwrap().len().unwrap()),
        ("garbage", read.open_table(GARBAGE).unwrap().len().unwrap()),
    ]
}

async fn until_no_garbage(log: &EmbeddedLog) {
    let cleaning = async {
        while log.slot().read(|read| Ok(!read.open_table(GARBAGE)?.is_empty()?)).unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cleaning).await.unwrap();
}

/// Ends the run with its `n`th entry.
fn ending(n: u64) -> Append {
    let terminal = Record::run_state(run(), RunState::Ended(Terminal::Completed), "{}");
    Append { records: vec![terminal], ..event(n, "") }
}

#[tokio::test]
async fn of_an_erased_session_only_a_tombstone_stays() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    open_run(&log).await;
    let texts: Vec<Record> = (0..2500).map(|_| event(2, "text").records.remove(0)).collect();
    stored(log.append(Append { records: texts, ..event(2, "") }).await.unwrap());
    stored(log.append(ending(2502)).await.unwrap());
    stored(log.append(written("p", 1, "text")).await.unwrap());

    assert!(log.erase(&session()).await.unwrap());
    until_no_garbage(&log).await;
    log.close().await;

    let left =
        [("entries", 0), ("sessions", 0), ("runs", 0), ("unborn", 0), ("producers", 0), ("tombs", 1), ("garbage", 0)];
    assert_eq!(rows(&disk), left);
}

#[tokio::test]
async fn a_run_is_forgotten_with_its_terminal() {
    let disk = Disk::new();
    let log = open(&disk, |options| options.retention.max_entries = 10);
    open_run(&log).await;
    stored(log.append(ending(2)).await.unwrap());
    stored(log.append(written("p", 1, "a")).await.unwrap());
    assert!(log.run(&session(), &run()).await.unwrap().is_some());
    let texts: Vec<Record> = (0..400).map(|_| written("p", 2, "text").records.remove(0)).collect();
    stored(log.append(Append { records: texts, ..written("p", 2, "") }).await.unwrap());
    assert_eq!(log.run(&session(), &run()).await.unwrap(), None);
    log.close().await;
    assert_eq!(rows(&disk)[..3], [("entries", 10), ("sessions", 1), ("runs", 0)]);
}

#[tokio::test]
async fn above_the_limit_of_all_sessions_the_oldest_ended_go_and_active_ones_never() {
    let disk = Disk::new();
    let log = open(&disk, |options| options.total_bytes = 100_000);
    // The session with the active run is the oldest.
    open_run(&log).await;
    let named = |i: u32| SessionId::parse(&format!("ended-{i}")).unwrap();
    let mut last = 0;
    for i in 0..20 {
        while now_ms() <= last {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let append = Append { session: named(i), ..written("p", 1, &"x".repeat(10_000)) };
        last = stored(log.append(append).await.unwrap()).ms;
    }
    let mut kept = Vec::new();
    let evicting = async {
        loop {
            kept.clear();
            for i in 0..20 {
                match log.bounds(&named(i)).await.unwrap() {
                    Bounds::Live(_) => kept.push(i),
                    Bounds::Expired { last } => assert_eq!(last.seq, 1),
                    other => panic!("{other:?}"),
                }
            }
            if kept.len() < 10 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), evicting).await.unwrap();
    assert!(kept.len() > 5, "no more go than must: {kept:?}");
    assert_eq!(kept, (20 - kept.len() as u32..20).collect::<Vec<_>>(), "the oldest go first");
    assert!(matches!(log.bounds(&session()).await.unwrap(), Bounds::Live(_)));
}

#[tokio::test]
async fn a_session_remembers_a_thousand_producers_and_forgets_the_one_that_wrote_least_recently() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    let from = |i: u32, n: u64| log.append(written(&format!("p{i}"), n, "text"));
    for answer in futures_util::future::join_all((0..1000).map(|i| from(i, 1))).await {
        stored(answer.unwrap());
    }
    stored(from(0, 2).await.unwrap());
    stored(from(1000, 1).await.unwrap());
    assert!(matches!(from(0, 2).await.unwrap(), Appended::Duplicate { .. }), "it wrote recently");
    assert_eq!(from(1, 2).await.unwrap(), Appended::Gap { expected: 1 }, "it is forgotten");
    log.close().await;
    assert_eq!(rows(&disk)[4], ("producers", 1000));
}

#[tokio::test]
async fn tombstones_are_kept_for_thirty_days_and_claims_for_the_ttl() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    open_run(&log).await;
    log.erase(&session()).await.unwrap();
    let unborn = Takeover { session: session(), run: run(), nonce: "h".into(), details: "{}".into() };
    log.takeover(unborn).await.unwrap();
    log.claim("key", "value".into()).await.unwrap();
    log.close().await;

    let database = database::on(disk.clone(), CACHE_BYTES).unwrap();
    let left_after = |ms: u64| {
        let (now_ms, retention) = (now_ms() + ms, Retention::default());
        let found = Sweeper::default().look(&database.begin_read().unwrap(), &retention, now_ms, 0, u64::MAX).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut batch = Batch::begin(&transaction, retention, now_ms).unwrap();
        batch.remove(&found).unwrap();
        batch.finish().unwrap();
        transaction.commit().unwrap();
        let read = database.begin_read().unwrap();
        (
            read.open_table(TOMBS).unwrap().len().unwrap(),
            read.open_table(UNBORN).unwrap().len().unwrap(),
            read.open_table(CLAIMS).unwrap().len().unwrap(),
        )
    };
    assert_eq!(left_after(DAY_MS - 60_000), (1, 1, 1));
    assert_eq!(left_after(DAY_MS), (1, 1, 0));
    assert_eq!(left_after(30 * DAY_MS - 60_000), (1, 1, 0));
    assert_eq!(left_after(30 * DAY_MS), (0, 0, 0));
}

#[tokio::test]
async fn a_sweep_looks_at_a_slice_and_comes_to_every_row() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    let claims = (0..2500).map(|i| async move { format!("key-{i:04}") });
    for key in futures_util::future::join_all(claims).await {
        log.claim(&key, "value".into()).await.unwrap();
    }
    log.close().await;
    let database = database::on(disk, CACHE_BYTES).unwrap();
    let (mut sweeper, later) = (Sweeper::default(), now_ms() + 2 * DAY_MS);
    let mut left = Vec::new();
    for _ in 0..3 {
        let retention = Retention::default();
        let found = sweeper.look(&database.begin_read().unwrap(), &retention, later, 0, u64::MAX).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut batch = Batch::begin(&transaction, retention, later).unwrap();
        batch.remove(&found).unwrap();
        batch.finish().unwrap();
        transaction.commit().unwrap();
        left.push(database.begin_read().unwrap().open_table(CLAIMS).unwrap().len().unwrap());
    }
    assert_eq!(left, [1500, 500, 0]);
}

#[tokio::test]
async fn what_is_damaged_in_one_session_does_not_stop_the_others() {
    let disk = Disk::new();
    let log = open(&disk, |_| {});
    open_run(&log).await;
    log.close().await;
    let database = database::on(disk.clone(), CACHE_BYTES).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(SESSIONS).unwrap().insert("s", [FORMAT as u8, 0x80].as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let log = open(&disk, |_| {});
    let other = || Append { session: SessionId::parse("other").unwrap(), ..written("p", 1, "fine") };
    let (damaged, fine) = tokio::join!(log.append(event(2, "text")), log.append(other()));
    assert_eq!(damaged.unwrap_err().detail, "the stored session is damaged");
    stored(fine.unwrap());
    assert_eq!(*log.health().borrow(), crate::log::StoreHealth::Up);
    assert!(log.slot().read(|read| Ok(read.open_table(ENTRIES)?.first()?.is_some())).unwrap());
}
