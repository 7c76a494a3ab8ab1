//! Places that are not named by an offset.

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

async fn the_end_and_the_last_entries_are_found(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    owner.says(&*log, &texts("text", 9)).await;
    let all = read_all(&*log, &owner.session).await;
    let place = |place| log.locate(&owner.session, place);
    assert_eq!(place(Place::End).await.unwrap(), Some(all[9].offset));
    assert_eq!(place(Place::Last(0)).await.unwrap(), Some(all[9].offset));
    assert_eq!(place(Place::Last(3)).await.unwrap(), Some(all[6].offset));
    assert_eq!(place(Place::Last(9)).await.unwrap(), Some(all[0].offset));
    for more in [10, 11, u64::MAX] {
        assert_eq!(place(Place::Last(more)).await.unwrap(), Some(Offset::ZERO));
    }
}

async fn a_time_is_found_between_the_entries(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let mut last = owner.open(&*log).await;
    for text in texts("text", 5) {
        until_after_the_millisecond_of(last).await;
        last = owner.says(&*log, &[text]).await.1;
    }
    let all = read_all(&*log, &owner.session).await;
    let since = async |ms| log.locate(&owner.session, Place::Since(ms)).await.unwrap();
    assert_eq!(since(0).await, Some(Offset::ZERO));
    assert_eq!(since(all[0].offset.ms).await, Some(Offset::ZERO));
    for i in 1..all.len() {
        assert_eq!(since(all[i].offset.ms).await, Some(all[i - 1].offset));
        assert_eq!(since(all[i - 1].offset.ms + 1).await, Some(all[i - 1].offset));
    }
    assert_eq!(since(last.ms + 1).await, Some(last));
    assert_eq!(since(u64::MAX).await, Some(last));
}

async fn entries_of_the_same_millisecond_are_not_torn_apart_by_a_time(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    until_after_the_millisecond_of(started).await;
    let (first, last) = owner.says(&*log, &texts("text", 20)).await;
    assert_eq!(first.ms, last.ms, "one append has one time");
    assert_eq!(log.locate(&owner.session, Place::Since(first.ms)).await.unwrap(), Some(started));
}

on_every_store!(
    the_end_and_the_last_entries_are_found,
    a_time_is_found_between_the_entries,
    entries_of_the_same_millisecond_are_not_torn_apart_by_a_time,
);
