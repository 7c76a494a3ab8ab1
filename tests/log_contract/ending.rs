//! Terminals and takeovers: exactly one terminal per run.

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

/// How many terminals the log shows for a run.
async fn terminals(log: &dyn Log, owner: &Owner) -> usize {
    let entries = read_all(log, &owner.session).await;
    let of_run = entries.iter().filter(|entry| entry.record.run.as_ref() == Some(&owner.run));
    of_run.filter(|entry| entry.record.state().and_then(RunState::terminal).is_some()).count()
}

async fn nothing_follows_the_terminal_of_a_run(store: Store) {
    let log = store.open().await;
    for (i, state) in
        [Terminal::Completed, Terminal::Failed, Terminal::Cancelled, Terminal::Interrupted].into_iter().enumerate()
    {
        let mut owner = Owner::new("s", &format!("r{i}"));
        owner.open(&*log).await;
        let offset = owner.ends(&*log, state).await;
        let closed = Appended::Closed(Closed::Terminal { offset, state });
        assert_eq!(log.append(owner.append_from(owner.n + 1, &["late"])).await.unwrap(), closed);
        assert_eq!(log.append(owner.ending(Terminal::Failed)).await.unwrap(), closed);
        assert_eq!(terminals(&*log, &owner).await, 1);
    }
}

async fn a_terminal_may_come_with_the_last_events(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let terminal = Record::run_state(owner.run.clone(), RunState::Ended(Terminal::Completed), "{}");
    let append = owner.append_records(2, vec![owner.event("last words"), terminal]);
    let Appended::Stored { last, .. } = log.append(append).await.unwrap() else { panic!("not stored") };
    let info = log.run(&owner.session, &owner.run).await.unwrap().unwrap();
    assert_eq!(info.ended, Some((last, Terminal::Completed)));
    assert_eq!(live(&*log, &owner.session).await.active, vec![]);
}

async fn who_sends_a_terminal_twice_learns_that_it_won(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let ending = owner.ending(Terminal::Completed);
    let Appended::Stored { last: offset, .. } = log.append(ending.clone()).await.unwrap() else { panic!("not stored") };
    let again = log.append(ending).await.unwrap();
    let won = match again {
        Appended::Duplicate { last, .. } => last == offset,
        Appended::Closed(Closed::Terminal { offset: o, state }) => (o, state) == (offset, Terminal::Completed),
        _ => false,
    };
    assert!(won, "{again:?}");
    assert_eq!(terminals(&*log, &owner).await, 1);
}

async fn a_takeover_ends_an_active_run_and_fences_its_owner(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let stored = owner.append_from(2, &["a"]);
    let (_, last) = owner.says(&*log, &["a"]).await;

    let taken = log.takeover(owner.takeover("heir")).await.unwrap();

    let entries = read_all(&*log, &owner.session).await;
    let terminal = entries.last().unwrap();
    assert_eq!(taken, TakenOver::Ended { offset: terminal.offset, state: Terminal::Interrupted });
    assert_eq!(terminal.record.run, Some(owner.run.clone()));
    assert_eq!(terminal.record.state(), Some(RunState::Ended(Terminal::Interrupted)));
    let took_ms = terminal.offset.ms - started.ms;
    assert_eq!(terminal.record.data, format!(r#"{{"duration_ms":{took_ms},"reason":"owner_gone"}}"#));
    let info = log.run(&owner.session, &owner.run).await.unwrap().unwrap();
    assert_eq!(info.ended, Some((terminal.offset, Terminal::Interrupted)));

    // Neither the next event nor a terminal of the old owner counts, and neither passes for stored.
    assert_eq!(log.append(owner.append_from(owner.n + 1, &["late"])).await.unwrap(), Appended::Fenced);
    assert_eq!(log.append(owner.ending(Terminal::Completed)).await.unwrap(), Appended::Fenced);
    // What it had stored before is still its own.
    let repeat = log.append(stored).await.unwrap();
    assert_eq!(repeat, Appended::Duplicate { last, flags: RunFlags::default() });
    assert_eq!(terminals(&*log, &owner).await, 1);
}

async fn followers_hear_of_a_takeover_what_readers_read(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut following = log.follow(&owner.session).await.unwrap();
    log.takeover(Takeover { details: "{}".into(), ..owner.takeover("heir") }).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, following.next()).await.unwrap().unwrap();
    let Push::Entries { entries: heard, .. } = heard else { panic!("{heard:?}") };
    assert_eq!(read_all(&*log, &owner.session).await[1..], heard);
}

async fn a_repeated_takeover_finds_the_same_end(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let TakenOver::Ended { offset, state } = log.takeover(owner.takeover("heir")).await.unwrap() else {
        panic!("not ended")
    };
    for nonce in ["heir", "other heir"] {
        let again = log.takeover(owner.takeover(nonce)).await.unwrap();
        let same = again == TakenOver::AlreadyEnded { offset, state }
            || (nonce == "heir" && again == TakenOver::Ended { offset, state });
        assert!(same, "{again:?}");
    }
    assert_eq!(terminals(&*log, &owner).await, 1);
}

async fn a_takeover_of_a_run_that_has_ended_changes_nothing(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let offset = owner.ends(&*log, Terminal::Completed).await;
    let taken = log.takeover(owner.takeover("heir")).await.unwrap();
    assert_eq!(taken, TakenOver::AlreadyEnded { offset, state: Terminal::Completed });
    assert_eq!(terminals(&*log, &owner).await, 1);
}

async fn a_run_that_was_taken_over_before_it_was_opened_can_never_be_opened(store: Store) {
    let log = store.open().await;
    let mut other = Owner::new("existing", "other");
    other.open(&*log).await;
    for name in ["missing", "existing"] {
        let mut owner = Owner::new(name, &format!("never-{name}"));
        for _ in 0..2 {
            assert_eq!(log.takeover(owner.takeover("heir")).await.unwrap(), TakenOver::NeverStarted);
        }
        let late = log.open_run(owner.opening()).await.unwrap();
        assert!(matches!(late, Opened::Closed(_)), "{late:?}");
        owner.n = 1;
        let append = log.append(owner.append_from(2, &["late"])).await.unwrap();
        assert!(matches!(append, Appended::Closed(_) | Appended::Fenced), "{append:?}");
    }
    assert!(matches!(log.bounds(&session("missing")).await.unwrap(), Bounds::NotFound));
    assert_eq!(read_all(&*log, &other.session).await.len(), 1);
    // The session is not harmed: other runs open in it.
    Owner::new("missing", "fine").open(&*log).await;
}

async fn of_a_terminal_and_a_takeover_at_once_exactly_one_wins(store: Store) {
    let log = store.open().await;
    for i in 0..20 {
        let mut owner = Owner::new("s", &format!("r{i}"));
        owner.open(&*log).await;
        let (ended, taken) =
            tokio::join!(log.append(owner.ending(Terminal::Completed)), log.takeover(owner.takeover("heir")));
        match (ended.unwrap(), taken.unwrap()) {
            (Appended::Stored { last, .. }, TakenOver::AlreadyEnded { offset, state }) => {
                assert_eq!((offset, state), (last, Terminal::Completed));
            }
            (Appended::Fenced, TakenOver::Ended { state: Terminal::Interrupted, .. }) => {}
            both => panic!("{both:?}"),
        }
        assert_eq!(terminals(&*log, &owner).await, 1);
    }
}

on_every_store!(
    nothing_follows_the_terminal_of_a_run,
    a_terminal_may_come_with_the_last_events,
    who_sends_a_terminal_twice_learns_that_it_won,
    a_takeover_ends_an_active_run_and_fences_its_owner,
    followers_hear_of_a_takeover_what_readers_read,
    a_repeated_takeover_finds_the_same_end,
    a_takeover_of_a_run_that_has_ended_changes_nothing,
    a_run_that_was_taken_over_before_it_was_opened_can_never_be_opened,
    of_a_terminal_and_a_takeover_at_once_exactly_one_wins,
);
