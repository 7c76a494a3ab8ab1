//! Logs that are trimmed: what a reader is told, exactly.

use std::time::Duration;

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

/// How many entries a store may keep beyond its limit: it trims in steps.
const SLACK: u64 = 256;

/// A session whose oldest entries are trimmed; its owner, the offsets of all entries ever, and its bounds.
async fn trimmed_session(log: &dyn Log) -> (Owner, Vec<Offset>, SessionBounds) {
    let mut owner = Owner::new("s", "r");
    let mut offsets = vec![owner.open(log).await];
    for batch in texts("text", 1000).chunks(50) {
        // So that offsets differ in both halves from batch to batch.
        until_after_the_millisecond_of(*offsets.last().unwrap()).await;
        let (first, last) = owner.says(log, batch).await;
        assert_eq!(first.ms, last.ms, "one append has one time");
        offsets.extend((first.seq..=last.seq).map(|seq| Offset::new(first.ms, seq)));
    }
    let bounds = until_trimmed(log, &owner.session).await;
    (owner, offsets, bounds)
}

async fn until_trimmed(log: &dyn Log, session: &SessionId) -> SessionBounds {
    let trimmed = async {
        loop {
            let bounds = live(log, session).await;
            if bounds.trimmed != Offset::ZERO {
                return bounds;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trimmed).await.unwrap()
}

fn hundred_entries() -> Retention {
    Retention { max_entries: 100, ..Retention::default() }
}

async fn a_session_keeps_its_newest_entries_and_says_exactly_what_it_has_trimmed(store: Store) {
    let log = store.open_with(hundred_entries()).await;
    let (owner, offsets, bounds) = trimmed_session(&*log).await;
    assert_eq!(bounds.tail, *offsets.last().unwrap());
    assert_eq!(bounds.trimmed, offsets[bounds.trimmed.seq as usize - 1], "trimmed is the exact offset of an entry");
    assert_eq!(bounds.entries, bounds.tail.seq - bounds.trimmed.seq);
    assert!((100..=100 + SLACK).contains(&bounds.entries), "{} entries", bounds.entries);

    let kept = read_after(&*log, &owner.session, bounds.trimmed).await;
    assert_contiguous(bounds.trimmed, &kept);
    assert_eq!(kept.len() as u64, bounds.entries);
    assert_eq!(kept.iter().map(|entry| entry.record.size() as u64).sum::<u64>(), bounds.bytes);
}

async fn a_cursor_below_a_trimmed_log_is_told_the_exact_range(store: Store) {
    let log = store.open_with(hundred_entries()).await;
    let (owner, offsets, bounds) = trimmed_session(&*log).await;
    let trimmed = bounds.trimmed;
    let older = offsets.iter().copied().filter(|offset| offset.seq < trimmed.seq && offset.ms < trimmed.ms);
    for cursor in std::iter::once(Offset::ZERO).chain(older) {
        let answer = log.read(&owner.session, cursor, PageLimits::default()).await.unwrap();
        let Read::Gap(gap) = answer else { panic!("after {cursor}: {answer:?}") };
        let lost = trimmed.seq - cursor.seq;
        assert_eq!(gap, Gap { from: cursor, to: trimmed, lost, reason: GapReason::Trimmed });
    }
}

async fn every_cursor_that_a_trimmed_log_still_knows_gives_exactly_the_suffix(store: Store) {
    let log = store.open_with(hundred_entries()).await;
    let (owner, offsets, bounds) = trimmed_session(&*log).await;
    let kept = read_after(&*log, &owner.session, bounds.trimmed).await;
    for (i, cursor) in offsets[bounds.trimmed.seq as usize - 1..].iter().enumerate() {
        assert_eq!(read_after(&*log, &owner.session, *cursor).await, kept[i..]);
    }
    assert_eq!(log.locate(&owner.session, Place::Last(u64::MAX)).await.unwrap(), Some(bounds.trimmed));
    assert_eq!(log.locate(&owner.session, Place::Since(0)).await.unwrap(), Some(bounds.trimmed));
    assert_eq!(log.locate(&owner.session, Place::End).await.unwrap(), Some(bounds.tail));
}

async fn a_run_whose_start_was_trimmed_goes_on_and_ends(store: Store) {
    let log = store.open_with(hundred_entries()).await;
    let (mut owner, offsets, bounds) = trimmed_session(&*log).await;
    assert_eq!(bounds.active.len(), 1, "an active run is never forgotten");
    assert_eq!(bounds.active[0].started, offsets[0]);
    let repeat = log.append(owner.append_from(3, &["text-2"])).await.unwrap();
    assert!(matches!(repeat, Appended::Duplicate { .. }), "{repeat:?}");
    // A caller may know of entries that retention removed since.
    let append = Append { seen: Some(offsets[10]), ..owner.append_from(owner.n + 1, &["more"]) };
    let answer = log.append(append).await.unwrap();
    assert!(matches!(answer, Appended::Stored { .. }), "{answer:?}");
    owner.n += 1;
    let end = owner.ends(&*log, Terminal::Completed).await;
    assert_eq!(end.seq, offsets.len() as u64 + 2);
}

async fn a_session_keeps_no_more_bytes_than_it_may(store: Store) {
    let log = store.open_with(Retention { max_bytes: 1 << 20, ..Retention::default() }).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let text = "x".repeat(64 << 10);
    for _ in 0..64 {
        owner.says(&*log, &[&text]).await;
    }
    let bounds = until_trimmed(&*log, &owner.session).await;
    assert!(bounds.bytes <= 2 << 20, "{} bytes", bounds.bytes);
    let kept = read_after(&*log, &owner.session, bounds.trimmed).await;
    assert_contiguous(bounds.trimmed, &kept);
    assert_eq!(kept.len() as u64, bounds.entries);
    assert_eq!(kept.last().unwrap().offset, bounds.tail);
}

on_every_store!(
    a_session_keeps_its_newest_entries_and_says_exactly_what_it_has_trimmed,
    a_cursor_below_a_trimmed_log_is_told_the_exact_range,
    every_cursor_that_a_trimmed_log_still_knows_gives_exactly_the_suffix,
    a_run_whose_start_was_trimmed_goes_on_and_ends,
    a_session_keeps_no_more_bytes_than_it_may,
);
