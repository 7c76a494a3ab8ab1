//! Appending to runs.

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

async fn appended_entries_get_contiguous_offsets_and_come_back_as_they_were(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let records = vec![
        owner.event("plain"),
        Record { event: Some("delta".into()), id: Some("7".into()), ..owner.event("two\nlines") },
        Record { event: Some("".into()), id: Some("".into()), source: Some("".into()), ..owner.event("") },
        Record { kind: Kind::EventDropped, ..owner.event(r#"{"bytes":17000000,"sha256":"00"}"#) },
        Record { kind: Kind::Status, source: Some("planner".into()), ..owner.event("{}") },
        Record::run_state(owner.run.clone(), RunState::Stalled, r#"{"silent_ms":120000}"#),
        owner.event("ünïcödé ✓ \u{0} \r\n \u{1F9E0}"),
    ];
    let answer = log.append(owner.append_records(2, records.clone())).await.unwrap();
    let entries = read_after(&*log, &owner.session, started).await;
    assert_contiguous(started, &entries);
    assert_eq!(entries.iter().map(|entry| entry.record.clone()).collect::<Vec<_>>(), records);
    let (first, last) = (entries[0].offset, entries[6].offset);
    assert_eq!(answer, Appended::Stored { first, last, flags: RunFlags::default(), next: None });
}

async fn an_entry_may_be_large(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let large = "0123456789abcdef".repeat(5 << 16);
    owner.says(&*log, &[&large]).await;
    owner.says(&*log, &["small"]).await;
    assert_eq!(data(&read_after(&*log, &owner.session, started).await), [&large, "small"]);
}

async fn a_repeated_append_is_a_duplicate_and_adds_nothing(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let append = owner.append_from(2, &["a", "b", "c"]);
    let Appended::Stored { last, .. } = log.append(append.clone()).await.unwrap() else { panic!("not stored") };
    for _ in 0..2 {
        let again = log.append(append.clone()).await.unwrap();
        assert_eq!(again, Appended::Duplicate { last, flags: RunFlags::default() });
    }
    let part = log.append(owner.append_from(3, &["b"])).await.unwrap();
    assert_eq!(part, Appended::Duplicate { last, flags: RunFlags::default() });
    assert_eq!(read_all(&*log, &owner.session).await.len(), 4);
}

async fn of_an_append_that_overlaps_only_the_new_part_is_stored(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let (_, last) = owner.says(&*log, &["a", "b"]).await;
    let answer = log.append(owner.append_from(3, &["b", "c", "d"])).await.unwrap();
    let Appended::Stored { first: added, last: tail, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((added.seq, tail.seq), (last.seq + 1, last.seq + 2));
    assert_eq!(data(&read_after(&*log, &owner.session, started).await), ["a", "b", "c", "d"]);
}

async fn an_append_that_skips_entries_is_a_gap_and_adds_nothing(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    owner.says(&*log, &["a"]).await;
    let answer = log.append(owner.append_from(4, &["c"])).await.unwrap();
    assert_eq!(answer, Appended::Gap { expected: 3 });
    assert_eq!(read_all(&*log, &owner.session).await.len(), 2);
    owner.says(&*log, &["b"]).await;
}

async fn an_append_with_another_fence_is_fenced(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let stranger = Owner { nonce: "stranger".into(), ..owner.clone() };
    assert_eq!(log.append(stranger.append_from(2, &["x"])).await.unwrap(), Appended::Fenced);
    owner.says(&*log, &["a"]).await;
    assert_eq!(read_all(&*log, &owner.session).await.len(), 2);
}

async fn an_append_to_a_run_that_was_never_opened_is_closed(store: Store) {
    let log = store.open().await;
    let nobody = Owner::new("nowhere", "r");
    assert_eq!(log.append(nobody.append_from(1, &["x"])).await.unwrap(), Appended::Closed(Closed::Unknown));
    assert!(matches!(log.bounds(&nobody.session).await.unwrap(), Bounds::NotFound));

    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let unopened = Owner::new("s", "unopened");
    assert_eq!(log.append(unopened.append_from(1, &["x"])).await.unwrap(), Appended::Closed(Closed::Unknown));
    assert_eq!(read_all(&*log, &owner.session).await.len(), 1);
}

async fn writers_of_one_session_interleave_without_disturbing_each_other(store: Store) {
    let log = store.open().await;
    let mut owners: Vec<Owner> = (0..4).map(|i| Owner::new("s", &format!("r{i}"))).collect();
    for owner in &mut owners {
        owner.open(&*log).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for mut owner in owners.clone() {
        let log = log.handle();
        tasks.spawn(async move {
            for text in texts(owner.run.as_str(), 30) {
                owner.says(&*log, &[text]).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let entries = read_all(&*log, &owners[0].session).await;
    assert_eq!(entries.len(), 4 + 4 * 30);
    for owner in &owners {
        let own: Vec<&str> = entries
            .iter()
            .filter(|entry| entry.record.run.as_ref() == Some(&owner.run) && entry.record.kind == Kind::Event)
            .map(|entry| &*entry.record.data)
            .collect();
        assert_eq!(own, texts(owner.run.as_str(), 30));
    }
}

async fn an_append_that_has_seen_what_the_log_has_is_stored(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let (middle, tail) = owner.says(&*log, &["a", "b"]).await;
    for seen in [tail, middle, started, Offset::ZERO] {
        let append = Append { seen: Some(seen), ..owner.append_from(owner.n + 1, &["more"]) };
        let answer = log.append(append).await.unwrap();
        assert!(matches!(answer, Appended::Stored { .. }), "seen {seen}: {answer:?}");
        owner.n += 1;
    }
}

async fn an_append_that_has_seen_what_the_log_does_not_have_is_told_of_the_rollback(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let (_, tail) = owner.says(&*log, &["a", "b"]).await;
    for seen in [Offset::new(tail.ms, tail.seq + 1), Offset::new(tail.ms + 5, tail.seq), Offset::new(tail.ms + 5, 2)] {
        let append = Append { seen: Some(seen), ..owner.append_from(4, &["c"]) };
        assert_eq!(log.append(append).await.unwrap(), Appended::RolledBack { tail, n: 3 }, "seen {seen}");
    }
    assert_eq!(read_all(&*log, &owner.session).await.len(), 3);
}

async fn a_writer_that_names_what_is_gone_goes_on_after_it(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let (_, tail) = owner.says(&*log, &["a"]).await;
    let named = Append { skips: true, ..owner.append_from(9, &["3 to 9 are lost", "j"]) };
    // It excuses nothing else.
    let stranger = Owner { nonce: "stranger".into(), ..owner.clone() };
    assert_eq!(log.append(Append { writer: stranger.writer(), ..named.clone() }).await.unwrap(), Appended::Fenced);
    let foreign = Append { seen: Some(Offset::new(tail.ms, tail.seq + 9)), ..named.clone() };
    assert_eq!(log.append(foreign).await.unwrap(), Appended::RolledBack { tail, n: 2 });

    let answer = log.append(named.clone()).await.unwrap();
    let Appended::Stored { first, last, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((first.seq, last.seq), (tail.seq + 1, tail.seq + 2));

    let again = log.append(named).await.unwrap();
    assert_eq!(again, Appended::Duplicate { last, flags: RunFlags::default() });
    assert_eq!(log.append(owner.append_from(12, &["l"])).await.unwrap(), Appended::Gap { expected: 11 });
    owner.n = 10;
    owner.says(&*log, &["k"]).await;
    owner.ends(&*log, Terminal::Completed).await;
    assert_eq!(data(&read_after(&*log, &owner.session, tail).await)[..3], ["3 to 9 are lost", "j", "k"]);
}

async fn a_run_ends_after_what_is_named_as_gone(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    owner.n = 20;
    let end = Append { skips: true, ..owner.ending(Terminal::Failed) };
    let answer = log.append(end.clone()).await.unwrap();
    let Appended::Stored { last, .. } = answer else { panic!("{answer:?}") };
    let ended = Appended::Closed(Closed::Terminal { offset: last, state: Terminal::Failed });
    assert_eq!(log.append(owner.append_from(22, &["late"])).await.unwrap(), ended);
    match log.append(end).await.unwrap() {
        Appended::Duplicate { .. } => {}
        again => assert_eq!(again, ended),
    }
}

on_every_store!(
    a_writer_that_names_what_is_gone_goes_on_after_it,
    a_run_ends_after_what_is_named_as_gone,
    appended_entries_get_contiguous_offsets_and_come_back_as_they_were,
    an_entry_may_be_large,
    a_repeated_append_is_a_duplicate_and_adds_nothing,
    of_an_append_that_overlaps_only_the_new_part_is_stored,
    an_append_that_skips_entries_is_a_gap_and_adds_nothing,
    an_append_with_another_fence_is_fenced,
    an_append_to_a_run_that_was_never_opened_is_closed,
    writers_of_one_session_interleave_without_disturbing_each_other,
    an_append_that_has_seen_what_the_log_has_is_stored,
    an_append_that_has_seen_what_the_log_does_not_have_is_told_of_the_rollback,
);
