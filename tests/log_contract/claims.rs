//! Idempotency claims.

use sidestream::log::*;

use crate::stores::Store;

async fn the_first_value_under_a_key_wins(store: Store) {
    let log = store.open().await;
    assert_eq!(log.claim("key", "mine".into()).await.unwrap(), Claim::Won);
    assert_eq!(log.claim("key", "yours".into()).await.unwrap(), Claim::Taken("mine".into()));
    assert_eq!(log.claim("key", "yours".into()).await.unwrap(), Claim::Taken("mine".into()));
    assert_eq!(log.claim("other key", "yours".into()).await.unwrap(), Claim::Won);
}

async fn a_claim_repeated_after_an_unknown_outcome_is_still_won(store: Store) {
    let log = store.open().await;
    for _ in 0..3 {
        assert_eq!(log.claim("key", "mine".into()).await.unwrap(), Claim::Won);
    }
}

async fn of_many_claims_at_once_exactly_one_wins(store: Store) {
    let log = store.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20 {
        let log = log.handle();
        tasks.spawn(async move { log.claim("key", format!("claimant-{i}").into()).await.unwrap() });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| **answer == Claim::Won).count(), 1);
    let mut losers = answers.iter().filter_map(|answer| match answer {
        Claim::Taken(winner) => Some(winner),
        Claim::Won => None,
    });
    let winner = losers.next().unwrap();
    assert!(losers.all(|other| other == winner));
}

async fn a_claim_is_amended_only_by_who_knows_its_value(store: Store) {
    let log = store.open().await;
    log.claim("key", "one".into()).await.unwrap();
    assert!(!log.amend("key", "another".into(), Some("two".into())).await.unwrap());
    for _ in 0..2 {
        assert!(log.amend("key", "one".into(), Some("two".into())).await.unwrap(), "a repeat is as good");
    }
    assert!(!log.amend("key", "one".into(), None).await.unwrap());
    assert!(!log.amend("nobody's key", "one".into(), Some("two".into())).await.unwrap());
    assert_eq!(log.claim("key", "mine".into()).await.unwrap(), Claim::Taken("two".into()));
}

async fn a_claim_that_was_given_up_is_free_for_the_next(store: Store) {
    let log = store.open().await;
    log.claim("key", "one".into()).await.unwrap();
    for _ in 0..2 {
        assert!(log.amend("key", "one".into(), None).await.unwrap(), "a repeat is as good");
    }
    assert_eq!(log.claim("key", "two".into()).await.unwrap(), Claim::Won);
    assert!(!log.amend("key", "one".into(), None).await.unwrap(), "it is somebody else's now");
    assert_eq!(log.claim("key", "three".into()).await.unwrap(), Claim::Taken("two".into()));
}

on_every_store!(
    a_claim_is_amended_only_by_who_knows_its_value,
    a_claim_that_was_given_up_is_free_for_the_next,
    the_first_value_under_a_key_wins,
    a_claim_repeated_after_an_unknown_outcome_is_still_won,
    of_many_claims_at_once_exactly_one_wins,
);
