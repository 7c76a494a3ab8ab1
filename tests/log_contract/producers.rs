//! Writers that have no run.

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

fn from(producer: &'static str, epoch: u64, first_n: u64, texts: &[&str]) -> Append {
    Append {
        session: session("s"),
        writer: Writer::Producer { id: producer.into(), epoch },
        first_n,
        records: texts.iter().map(|text| event(text)).collect(),
        seen: None,
        skips: false,
    }
}

async fn stored(log: &dyn Log, append: Append) -> (Offset, Offset) {
    match log.append(append).await.unwrap() {
        Appended::Stored { first, last, .. } => (first, last),
        other => panic!("not stored: {other:?}"),
    }
}

async fn a_producer_creates_the_session_it_writes_to(store: Store) {
    let log = store.open().await;
    let (first, last) = stored(&*log, from("p", 1, 1, &["a", "b"])).await;
    assert_eq!((first.seq, last.seq), (1, 2));
    assert_eq!(data(&read_all(&*log, &session("s")).await), ["a", "b"]);
    assert_eq!(live(&*log, &session("s")).await.active, vec![]);
}

async fn a_producer_that_repeats_itself_is_heard_once(store: Store) {
    let log = store.open().await;
    stored(&*log, from("p", 1, 1, &["a"])).await;
    let (_, last) = stored(&*log, from("p", 1, 1, &["a", "b"])).await;
    let again = log.append(from("p", 1, 2, &["b"])).await.unwrap();
    assert!(matches!(again, Appended::Duplicate { last: l, .. } if l == last), "{again:?}");
    assert_eq!(data(&read_all(&*log, &session("s")).await), ["a", "b"]);
}

async fn a_producer_that_skips_is_told_what_must_come_next(store: Store) {
    let log = store.open().await;
    stored(&*log, from("p", 1, 1, &["a"])).await;
    assert_eq!(log.append(from("p", 1, 3, &["c"])).await.unwrap(), Appended::Gap { expected: 2 });
    assert_eq!(log.append(from("q", 1, 2, &["c"])).await.unwrap(), Appended::Gap { expected: 1 });
    assert_eq!(data(&read_all(&*log, &session("s")).await), ["a"]);
}

async fn a_producer_that_names_what_is_gone_goes_on_after_it(store: Store) {
    let log = store.open().await;
    stored(&*log, from("p", 1, 1, &["a"])).await;
    stored(&*log, Append { skips: true, ..from("p", 1, 5, &["2 to 5 are lost", "f"]) }).await;
    let elsewhere = Append { session: session("lost"), skips: true, ..from("q", 1, 2, &["again"]) };
    stored(&*log, elsewhere).await;
    let again = log.append(Append { skips: true, ..from("p", 1, 5, &["2 to 5 are lost", "f"]) }).await.unwrap();
    assert!(matches!(again, Appended::Duplicate { .. }), "{again:?}");
    assert_eq!(log.append(from("p", 1, 8, &["h"])).await.unwrap(), Appended::Gap { expected: 7 });
    assert_eq!(data(&read_all(&*log, &session("s")).await), ["a", "2 to 5 are lost", "f"]);
}

async fn a_newer_epoch_of_a_producer_counts_anew_and_fences_the_older(store: Store) {
    let log = store.open().await;
    stored(&*log, from("p", 1, 1, &["a", "b"])).await;
    assert_eq!(log.append(from("p", 2, 3, &["x"])).await.unwrap(), Appended::Gap { expected: 1 });
    stored(&*log, from("p", 2, 1, &["c"])).await;
    assert_eq!(log.append(from("p", 1, 3, &["late"])).await.unwrap(), Appended::Fenced);
    stored(&*log, from("p", 2, 2, &["d"])).await;
    assert_eq!(data(&read_all(&*log, &session("s")).await), ["a", "b", "c", "d"]);
}

async fn producers_and_runs_share_a_session(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    stored(&*log, from("p", 1, 1, &["a"])).await;
    owner.says(&*log, &["b"]).await;
    stored(&*log, from("q", 9, 1, &["c"])).await;
    stored(&*log, from("p", 1, 2, &["d"])).await;
    owner.ends(&*log, Terminal::Completed).await;
    stored(&*log, from("p", 1, 3, &["e"])).await;
    let entries = read_all(&*log, &owner.session).await;
    let events: Vec<_> = entries.iter().filter(|e| e.record.kind == Kind::Event).map(|e| &*e.record.data).collect();
    assert_eq!(events, ["a", "b", "c", "d", "e"]);
}

fn into(run: &RunId, append: Append) -> Append {
    let records = append.records.into_iter().map(|record| Record { run: Some(run.clone()), ..record }).collect();
    Append { records, ..append }
}

async fn a_producer_writes_into_a_run_while_it_is_active(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    stored(&*log, into(&owner.run, from("p", 1, 1, &["a"]))).await;
    owner.says(&*log, &["b"]).await;
    let end = owner.ends(&*log, Terminal::Completed).await;
    let ended = Appended::Closed(Closed::Terminal { offset: end, state: Terminal::Completed });
    assert_eq!(log.append(into(&owner.run, from("p", 1, 2, &["late"]))).await.unwrap(), ended);
    assert_eq!(log.append(into(&owner.run, from("q", 1, 1, &["late"]))).await.unwrap(), ended);
    let again = log.append(into(&owner.run, from("p", 1, 1, &["a"]))).await.unwrap();
    assert!(matches!(again, Appended::Duplicate { .. }), "what is stored stays the producer's own: {again:?}");
    // Of no run, it goes on.
    stored(&*log, from("p", 1, 2, &["c"])).await;
    let entries = read_all(&*log, &owner.session).await;
    let events: Vec<_> = entries.iter().filter(|e| e.record.kind == Kind::Event).map(|e| &*e.record.data).collect();
    assert_eq!(events, ["a", "b", "c"]);
    assert!(entries[1].record.run.as_ref() == Some(&owner.run));
}

async fn a_producer_cannot_write_into_a_run_that_its_session_does_not_have(store: Store) {
    let log = store.open().await;
    let mut elsewhere = Owner::new("elsewhere", "r");
    elsewhere.open(&*log).await;
    let unknown = Appended::Closed(Closed::Unknown);
    assert_eq!(log.append(into(&elsewhere.run, from("p", 1, 1, &["a"]))).await.unwrap(), unknown);
    assert!(matches!(log.bounds(&session("s")).await.unwrap(), Bounds::NotFound), "nor does it make the session");
    stored(&*log, from("p", 1, 1, &["a"])).await;
    assert_eq!(log.append(into(&elsewhere.run, from("p", 1, 2, &["b"]))).await.unwrap(), unknown);
}

async fn the_first_entry_of_a_producer_makes_an_erased_session_anew(store: Store) {
    let log = store.open().await;
    let (_, last) = stored(&*log, from("p", 1, 1, &["secret"])).await;
    log.erase(&session("s")).await.unwrap();
    assert_eq!(log.append(from("p", 1, 2, &["late"])).await.unwrap(), Appended::Closed(Closed::Erased));
    let again = log.append(Append { skips: true, ..from("q", 1, 2, &["again"]) }).await.unwrap();
    assert_eq!(again, Appended::Closed(Closed::Erased), "nor does what was there before");
    let (first, _) = stored(&*log, from("q", 1, 1, &["new"])).await;
    assert_eq!(first.seq, last.seq + 1);
    assert_eq!(data(&read_after(&*log, &session("s"), last).await), ["new"]);
}

on_every_store!(
    a_producer_creates_the_session_it_writes_to,
    a_producer_that_repeats_itself_is_heard_once,
    a_producer_that_skips_is_told_what_must_come_next,
    a_producer_that_names_what_is_gone_goes_on_after_it,
    a_newer_epoch_of_a_producer_counts_anew_and_fences_the_older,
    producers_and_runs_share_a_session,
    a_producer_writes_into_a_run_while_it_is_active,
    a_producer_cannot_write_into_a_run_that_its_session_does_not_have,
    the_first_entry_of_a_producer_makes_an_erased_session_anew,
);
