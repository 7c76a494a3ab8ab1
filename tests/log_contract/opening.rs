//! Opening runs.

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

async fn opening_a_run_creates_the_session(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    assert!(matches!(log.bounds(&owner.session).await.unwrap(), Bounds::NotFound));

    let started = owner.open(&*log).await;

    assert_eq!(started.seq, 1);
    let entries = read_all(&*log, &owner.session).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].offset, started);
    assert_eq!(entries[0].record.state(), Some(RunState::Started));
}

async fn opening_a_run_again_with_the_same_nonce_answers_the_same_start_and_adds_nothing(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    assert_eq!(log.open_run(owner.opening()).await.unwrap(), Opened::Open { started, flags: RunFlags::default() });
    owner.says(&*log, &["a"]).await;
    assert_eq!(log.open_run(owner.opening()).await.unwrap(), Opened::Open { started, flags: RunFlags::default() });
    assert_eq!(read_all(&*log, &owner.session).await.len(), 2);
}

async fn opening_a_run_that_somebody_else_has_opened_is_fenced(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let other = Owner { nonce: "another".into(), ..owner.clone() };
    assert_eq!(log.open_run(other.opening()).await.unwrap(), Opened::Fenced);
    assert_eq!(read_all(&*log, &owner.session).await.len(), 1);
}

async fn the_first_entries_of_a_run_count_and_its_start_is_the_last_of_them(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let mut opening = owner.opening();
    let question = Record { kind: Kind::Input, source: Some("user-1".into()), ..owner.event("what?") };
    opening.records.insert(0, question.clone());

    let opened = log.open_run(opening).await.unwrap();

    let entries = read_all(&*log, &owner.session).await;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].record, question);
    assert_eq!(opened, Opened::Open { started: entries[1].offset, flags: RunFlags::default() });
    let early = log.append(owner.append_from(2, &["already there"])).await.unwrap();
    assert!(matches!(early, Appended::Duplicate { last, .. } if last == entries[1].offset), "{early:?}");
    owner.n = 2;
    assert_eq!(owner.says(&*log, &["a"]).await.0.seq, 3);
}

async fn a_run_is_known_by_its_id_alone(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    assert_eq!(log.session_of(&owner.run).await.unwrap(), None);
    assert_eq!(log.run(&owner.session, &owner.run).await.unwrap(), None);

    let started = owner.open(&*log).await;
    assert_eq!(log.session_of(&owner.run).await.unwrap(), Some(owner.session.clone()));
    let mut info = RunInfo {
        run: owner.run.clone(),
        owner: owner.instance.clone(),
        started,
        last: started,
        ended: None,
        parent: None,
        cancel: None,
    };
    assert_eq!(log.run(&owner.session, &owner.run).await.unwrap(), Some(info.clone()));
    assert_eq!(log.run(&owner.session, &run_id("other")).await.unwrap(), None);

    info.last = owner.says(&*log, &["a", "b"]).await.1;
    assert_eq!(log.run(&owner.session, &owner.run).await.unwrap(), Some(info.clone()));

    info.last = owner.ends(&*log, Terminal::Completed).await;
    info.ended = Some((info.last, Terminal::Completed));
    assert_eq!(log.run(&owner.session, &owner.run).await.unwrap(), Some(info));
}

async fn bounds_name_the_active_runs_and_the_newest_run(store: Store) {
    let log = store.open().await;
    let (mut first, mut second) = (Owner::new("s", "r1"), Owner::new("s", "r2"));
    first.open(&*log).await;
    second.open(&*log).await;
    let (_, tail) = first.says(&*log, &["some", "text"]).await;

    let bounds = live(&*log, &first.session).await;
    assert_eq!((bounds.trimmed, bounds.tail, bounds.entries), (Offset::ZERO, tail, 4));
    assert_eq!(bounds.active.iter().map(|run| run.run.as_str()).collect::<Vec<_>>(), ["r1", "r2"]);
    assert_eq!(bounds.newest_run, Some(second.run.clone()));
    let size: usize = read_all(&*log, &first.session).await.iter().map(|entry| entry.record.size()).sum();
    assert_eq!(bounds.bytes, size as u64);
    assert!(bounds.created_ms > 0 && bounds.created_ms <= tail.ms);
    assert!(bounds.expires_in <= Retention::default().ttl && bounds.expires_in * 2 > Retention::default().ttl);

    first.ends(&*log, Terminal::Failed).await;
    let bounds = live(&*log, &first.session).await;
    assert_eq!(bounds.active.iter().map(|run| run.run.as_str()).collect::<Vec<_>>(), ["r2"]);
    assert_eq!(bounds.newest_run, Some(second.run));
}

async fn operators_see_the_sessions_that_exist(store: Store) {
    let log = store.open().await;
    assert_eq!(log.sessions(10).await.unwrap(), vec![]);
    let mut rows = Vec::new();
    for name in ["a", "b", "c"] {
        let mut owner = Owner::new(name, &format!("run-of-{name}"));
        let mut tail = owner.open(&*log).await;
        if name == "b" {
            tail = owner.ends(&*log, Terminal::Completed).await;
        }
        rows.push(SessionRow { session: owner.session, tail, active: usize::from(name != "b") });
    }
    let mut found = log.sessions(10).await.unwrap();
    found.sort_by(|a, b| a.session.cmp(&b.session));
    assert_eq!(found, rows);
    assert_eq!(log.sessions(2).await.unwrap().len(), 2);
}

on_every_store!(
    opening_a_run_creates_the_session,
    opening_a_run_again_with_the_same_nonce_answers_the_same_start_and_adds_nothing,
    opening_a_run_that_somebody_else_has_opened_is_fenced,
    the_first_entries_of_a_run_count_and_its_start_is_the_last_of_them,
    a_run_is_known_by_its_id_alone,
    bounds_name_the_active_runs_and_the_newest_run,
    operators_see_the_sessions_that_exist,
);
