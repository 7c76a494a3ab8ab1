//! Pages and cursors.

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

async fn every_offset_of_a_log_gives_exactly_the_suffix(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    for batch in texts("text", 60).chunks(7) {
        owner.says(&*log, batch).await;
    }
    let all = read_all(&*log, &owner.session).await;
    assert_eq!(all.len(), 61);
    for (i, entry) in all.iter().enumerate() {
        assert_eq!(read_after(&*log, &owner.session, entry.offset).await, all[i + 1..]);
    }
}

async fn a_page_is_bounded_by_entries(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let (_, tail) = owner.says(&*log, &texts("text", 10)).await;
    let all = read_all(&*log, &owner.session).await;
    let mut cursor = Offset::ZERO;
    for expected in all.chunks(3) {
        let page = page(&*log, &owner.session, cursor, PageLimits { entries: 3, bytes: 1 << 20 }).await;
        assert_eq!(page.entries, expected);
        assert_eq!(page.tail, tail);
        cursor = expected.last().unwrap().offset;
    }
}

async fn a_page_is_bounded_by_bytes_but_has_at_least_one_entry(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let big = "x".repeat(1000);
    let (first, _) = owner.says(&*log, &vec![big; 6]).await;
    let size = |page: &Page| page.entries.iter().map(|entry| entry.record.size()).sum::<usize>();

    let page_of_two = page(&*log, &owner.session, started, PageLimits { entries: 100, bytes: 2500 }).await;
    assert_eq!(page_of_two.entries.len(), 2);
    assert!(size(&page_of_two) <= 2500);
    let page_of_one = page(&*log, &owner.session, first, PageLimits { entries: 100, bytes: 10 }).await;
    assert_eq!(page_of_one.entries.len(), 1);
    assert_eq!(page_of_one.entries[0].offset.seq, first.seq + 1);
}

async fn the_page_at_the_tail_is_empty(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let tail = owner.open(&*log).await;
    let page = page(&*log, &owner.session, tail, PageLimits::default()).await;
    assert_eq!((page.entries.len(), page.tail), (0, tail));
}

async fn a_session_that_does_not_exist_is_not_found(store: Store) {
    let log = store.open().await;
    let nowhere = session("nowhere");
    for after in [Offset::ZERO, Offset::new(1, 1)] {
        assert!(matches!(log.read(&nowhere, after, PageLimits::default()).await.unwrap(), Read::NotFound));
    }
    assert_eq!(log.locate(&nowhere, Place::End).await.unwrap(), None);
    assert!(matches!(log.bounds(&nowhere).await.unwrap(), Bounds::NotFound));
    assert_eq!(log.run(&nowhere, &run_id("r")).await.unwrap(), None);
}

/// The gap that a cursor meets.
async fn gap(log: &dyn Log, session: &SessionId, after: Offset) -> Gap {
    match log.read(session, after, PageLimits::default()).await.unwrap() {
        Read::Gap(gap) => gap,
        other => panic!("no gap after {after}: {other:?}"),
    }
}

async fn a_cursor_that_the_log_never_gave_is_rolled_back_and_never_moved_silently(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    until_after_the_millisecond_of(started).await;
    owner.says(&*log, &texts("text", 5)).await;
    let all = read_all(&*log, &owner.session).await;
    let (middle, tail) = (all[3].offset, all[5].offset);
    let strangers = [
        Offset::new(tail.ms, tail.seq + 1),         // of the future
        Offset::new(tail.ms + 1000, tail.seq + 50), // of the far future
        Offset::new(tail.ms + 1, tail.seq),         // of another branch: the same seq at another time
        Offset::new(middle.ms - 1, middle.seq),     // the same, earlier
        Offset::new(1, 3),                          // long before the session existed
    ];
    for stranger in strangers {
        let gap = gap(&*log, &owner.session, stranger).await;
        assert_eq!((gap.from, gap.reason), (stranger, GapReason::RolledBack));
        assert!(gap.to.seq < stranger.seq, "{stranger}: {gap:?}");
        assert_eq!(gap.lost, stranger.seq - gap.to.seq, "{stranger}");
        // The reader goes on from `to`, with the very next entry.
        let rest = read_after(&*log, &owner.session, gap.to).await;
        assert_eq!(rest, all[gap.to.seq as usize..]);
    }
}

async fn what_a_cursor_of_the_last_minute_that_is_not_there_is_worth_is_not_known(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let (_, tail) = owner.says(&*log, &texts("text", 5)).await;
    let recent = gap(&*log, &owner.session, Offset::new(tail.ms + 1, tail.seq + 2)).await;
    assert_eq!((recent.to, recent.lost), (Offset::ZERO, tail.seq + 2));
}

on_every_store!(
    every_offset_of_a_log_gives_exactly_the_suffix,
    a_page_is_bounded_by_entries,
    a_page_is_bounded_by_bytes_but_has_at_least_one_entry,
    the_page_at_the_tail_is_empty,
    a_session_that_does_not_exist_is_not_found,
    a_cursor_that_the_log_never_gave_is_rolled_back_and_never_moved_silently,
    what_a_cursor_of_the_last_minute_that_is_not_there_is_worth_is_not_known,
);
