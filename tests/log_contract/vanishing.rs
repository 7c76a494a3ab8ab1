//! Sessions that are erased or expire.

use std::time::Duration;

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

async fn an_erased_session_is_gone_and_late_appends_are_told_so(store: Store) {
    let log = store.open().await;
    let (mut active, mut ended) = (Owner::new("s", "active"), Owner::new("s", "ended"));
    active.open(&*log).await;
    ended.open(&*log).await;
    ended.ends(&*log, Terminal::Completed).await;

    assert!(log.erase(&active.session).await.unwrap());

    assert!(matches!(log.bounds(&active.session).await.unwrap(), Bounds::Erased));
    assert!(matches!(log.read(&active.session, Offset::ZERO, PageLimits::default()).await.unwrap(), Read::NotFound));
    assert_eq!(log.locate(&active.session, Place::End).await.unwrap(), None);
    assert_eq!(log.sessions(10).await.unwrap(), vec![]);
    for owner in [&active, &ended] {
        let late = log.append(owner.append_from(owner.n + 1, &["late"])).await.unwrap();
        assert_eq!(late, Appended::Closed(Closed::Erased));
        assert_eq!(log.run(&owner.session, &owner.run).await.unwrap(), None);
        assert_eq!(log.session_of(&owner.run).await.unwrap(), None);
    }
    assert_eq!(log.takeover(active.takeover("heir")).await.unwrap(), TakenOver::Closed(Closed::Erased));
    assert!(matches!(log.bounds(&active.session).await.unwrap(), Bounds::Erased));
}

async fn erasing_what_does_not_exist_says_so(store: Store) {
    let log = store.open().await;
    assert!(!log.erase(&session("nowhere")).await.unwrap());
    assert!(matches!(log.bounds(&session("nowhere")).await.unwrap(), Bounds::NotFound));
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    assert!(log.erase(&owner.session).await.unwrap());
    log.erase(&owner.session).await.unwrap();
    assert!(matches!(log.bounds(&owner.session).await.unwrap(), Bounds::Erased));
}

async fn a_session_made_anew_never_uses_an_offset_again(store: Store) {
    let log = store.open().await;
    let mut old = Owner::new("s", "old");
    old.open(&*log).await;
    let (middle, tail) = old.says(&*log, &["secret", "words"]).await;
    log.erase(&old.session).await.unwrap();

    let mut new = Owner::new("s", "new");
    let started = new.open(&*log).await;

    assert_eq!(started.seq, tail.seq + 1);
    assert!(started.ms >= tail.ms);
    let late = log.append(old.append_from(old.n + 1, &["late"])).await.unwrap();
    assert!(matches!(late, Appended::Closed(_)), "{late:?}");
    for cursor in [Offset::ZERO, middle] {
        let answer = log.read(&new.session, cursor, PageLimits::default()).await.unwrap();
        let Read::Gap(gap) = answer else { panic!("after {cursor}: {answer:?}") };
        assert_eq!((gap.from, gap.to), (cursor, tail));
        assert_eq!(gap.lost, tail.seq - cursor.seq);
    }
    let entries = read_after(&*log, &new.session, tail).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].offset, started);
    let bounds = live(&*log, &new.session).await;
    assert_eq!((bounds.trimmed, bounds.tail, bounds.entries), (tail, started, 1));
}

fn a_second() -> Retention {
    Retention { ttl: Duration::from_secs(1), ..Retention::default() }
}

/// Waits until the session has expired; the last offset that it had.
async fn until_expired(log: &dyn Log, session: &SessionId) -> Offset {
    let expired = async {
        loop {
            match log.bounds(session).await.unwrap() {
                Bounds::Expired { last } => return last,
                Bounds::Live(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("neither live nor expired: {other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, expired).await.unwrap()
}

async fn a_session_that_nobody_writes_to_expires_and_its_readers_are_told(store: Store) {
    let log = store.open_with(a_second()).await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    owner.says(&*log, &["a", "b"]).await;
    let tail = owner.ends(&*log, Terminal::Completed).await;

    assert_eq!(until_expired(&*log, &owner.session).await, tail);

    for cursor in [Offset::ZERO, started] {
        let answer = log.read(&owner.session, cursor, PageLimits::default()).await.unwrap();
        let Read::Gap(gap) = answer else { panic!("after {cursor}: {answer:?}") };
        let lost = tail.seq - cursor.seq;
        assert_eq!(gap, Gap { from: cursor, to: tail, lost, reason: GapReason::Expired });
    }
    let late = log.append(owner.append_from(owner.n + 1, &["late"])).await.unwrap();
    assert_eq!(late, Appended::Closed(Closed::Expired));
    assert_eq!(log.locate(&owner.session, Place::End).await.unwrap(), None);
    assert_eq!(log.sessions(10).await.unwrap(), vec![]);

    let restarted = Owner::new("s", "again").open(&*log).await;
    assert_eq!(restarted.seq, tail.seq + 1, "an expired session that comes back uses no offset again");
}

async fn a_session_lives_as_long_as_somebody_writes(store: Store) {
    let log = store.open_with(a_second()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        owner.says(&*log, &["still here"]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(read_all(&*log, &owner.session).await.len() as u64, owner.n);
}

on_every_store!(
    an_erased_session_is_gone_and_late_appends_are_told_so,
    erasing_what_does_not_exist_says_so,
    a_session_made_anew_never_uses_an_offset_again,
    a_session_that_nobody_writes_to_expires_and_its_readers_are_told,
    a_session_lives_as_long_as_somebody_writes,
);
