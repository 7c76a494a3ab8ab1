//! Cancelling: the flag is there before anybody is answered, and nothing loses it.

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

const BY: &str = r#"{"client":"phone 1"}"#;

fn request(session_name: &str, target: CancelTarget) -> CancelRequest {
    CancelRequest { session: session(session_name), target, by: BY.into() }
}

fn of(owner: &Owner) -> CancelRequest {
    CancelRequest { session: owner.session.clone(), target: CancelTarget::Run(owner.run.clone()), by: BY.into() }
}

/// The one run's outcome.
async fn cancel_one(log: &dyn Log, request: CancelRequest) -> CancelOutcome {
    match log.cancel(request).await.unwrap() {
        Cancelled::Runs(mut runs) if runs.len() == 1 => runs.remove(0).1,
        other => panic!("not one run: {other:?}"),
    }
}

fn requested() -> CancelOutcome {
    CancelOutcome::Requested { owner: instance("inst-1") }
}

async fn who_asked(log: &dyn Log, owner: &Owner) -> Option<String> {
    log.run(&owner.session, &owner.run).await.unwrap().unwrap().cancel.map(|by| by.to_string())
}

async fn terminals(log: &dyn Log, owner: &Owner) -> Vec<Terminal> {
    let entries = read_all(log, &owner.session).await;
    let own = entries.iter().filter(|entry| entry.record.run.as_ref() == Some(&owner.run));
    own.filter_map(|entry| entry.record.state().and_then(RunState::terminal)).collect()
}

async fn a_cancelled_run_is_flagged_for_everybody_who_asks(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    assert_eq!(who_asked(&*log, &owner).await, None);

    assert_eq!(cancel_one(&*log, of(&owner)).await, requested());

    assert_eq!(who_asked(&*log, &owner).await.as_deref(), Some(BY));
    assert_eq!(live(&*log, &owner.session).await.active[0].cancel.as_deref(), Some(BY));
    let append = owner.append_from(2, &["a"]);
    let stored = log.append(append.clone()).await.unwrap();
    assert!(matches!(stored, Appended::Stored { flags: RunFlags { cancel: Some(_) }, .. }), "{stored:?}");
    let again = log.append(append).await.unwrap();
    assert!(matches!(again, Appended::Duplicate { flags: RunFlags { cancel: Some(_) }, .. }), "{again:?}");
    let opened = log.open_run(owner.opening()).await.unwrap();
    assert!(matches!(opened, Opened::Open { flags: RunFlags { cancel: Some(_) }, .. }), "{opened:?}");
    // A request is no entry of the log: the run's terminal will be.
    assert_eq!(read_all(&*log, &owner.session).await.len(), 2);
}

async fn cancelling_twice_is_answered_alike_and_the_first_to_ask_stays(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    assert_eq!(cancel_one(&*log, of(&owner)).await, requested());
    let second = CancelRequest { by: r#"{"client":"laptop"}"#.into(), ..of(&owner) };
    assert_eq!(cancel_one(&*log, second).await, requested());
    assert_eq!(who_asked(&*log, &owner).await.as_deref(), Some(BY));

    let offset = owner.ends(&*log, Terminal::Cancelled).await;
    let ended = CancelOutcome::AlreadyEnded { offset, state: Terminal::Cancelled };
    for _ in 0..2 {
        assert_eq!(cancel_one(&*log, of(&owner)).await, ended);
    }
    assert_eq!(terminals(&*log, &owner).await, [Terminal::Cancelled]);
}

async fn what_is_not_there_is_not_found(store: Store) {
    let log = store.open().await;
    let nothing = Owner::new("nothing", "r");
    assert_eq!(cancel_one(&*log, of(&nothing)).await, CancelOutcome::NotFound);
    assert_eq!(log.cancel(request("nothing", CancelTarget::Active)).await.unwrap(), Cancelled::Runs(vec![]));
    assert!(matches!(log.bounds(&nothing.session).await.unwrap(), Bounds::NotFound));

    let mut other = Owner::new("s", "other");
    other.open(&*log).await;
    let elsewhere = Owner { session: other.session.clone(), ..nothing.clone() };
    assert_eq!(cancel_one(&*log, of(&elsewhere)).await, CancelOutcome::NotFound);
    let never = Owner::new("s", "never");
    assert_eq!(log.takeover(never.takeover("heir")).await.unwrap(), TakenOver::NeverStarted);
    assert_eq!(cancel_one(&*log, of(&never)).await, CancelOutcome::NotFound);

    log.erase(&other.session).await.unwrap();
    assert_eq!(cancel_one(&*log, of(&other)).await, CancelOutcome::NotFound);
}

async fn a_takeover_of_a_cancelled_run_writes_cancelled(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let by = r#"{"client":"phone","note":"\"},{"}"#;
    cancel_one(&*log, CancelRequest { by: by.into(), ..of(&owner) }).await;
    let taken = log.takeover(owner.takeover("heir")).await.unwrap();
    assert!(matches!(taken, TakenOver::Ended { state: Terminal::Cancelled, .. }), "{taken:?}");
    let entries = read_all(&*log, &owner.session).await;
    let took_ms = entries[1].offset.ms - entries[0].offset.ms;
    let details = format!(r#"{{"by":{by},"duration_ms":{took_ms},"reason":"owner_gone"}}"#);
    assert_eq!(entries[1].record.data, details);
    assert_eq!(log.append(owner.ending(Terminal::Cancelled)).await.unwrap(), Appended::Fenced);
    assert_eq!(terminals(&*log, &owner).await, [Terminal::Cancelled]);
}

async fn a_run_knows_its_parent_as_long_as_it_is_known(store: Store) {
    let log = store.open().await;
    let mut root = Owner::new("s", "root");
    root.open(&*log).await;
    let mut child = Owner::new("s", "child");
    log.open_run(OpenRun { parent: Some(root.run.clone()), ..child.opening() }).await.unwrap();
    child.n = 1;
    let parents = live(&*log, &root.session).await.active.into_iter().map(|run| run.parent).collect::<Vec<_>>();
    assert_eq!(parents, [None, Some(root.run.clone())]);
    child.ends(&*log, Terminal::Completed).await;
    let info = log.run(&child.session, &child.run).await.unwrap().unwrap();
    assert_eq!(info.parent, Some(root.run));
}

async fn active_means_every_active_run_and_no_other(store: Store) {
    let log = store.open().await;
    let open = async |name: &str, parent: Option<&str>| {
        let mut owner = Owner::new("s", name);
        let opening = OpenRun { parent: parent.map(run_id), ..owner.opening() };
        assert!(matches!(log.open_run(opening).await.unwrap(), Opened::Open { .. }));
        owner.n = 1;
        owner
    };
    open("root", None).await;
    open("child", Some("root")).await;
    open("grandchild", Some("child")).await;
    open("other-root", None).await;
    let mut ended = open("ended", None).await;
    open("left-behind", Some("ended")).await;
    ended.ends(&*log, Terminal::Completed).await;

    for _ in 0..2 {
        let answer = log.cancel(request("s", CancelTarget::Active)).await.unwrap();
        let expected = ["root", "child", "grandchild", "other-root", "left-behind"];
        assert_eq!(answer, Cancelled::Runs(expected.map(|name| (run_id(name), requested())).to_vec()));
    }
    let active = live(&*log, &session("s")).await.active;
    assert!(active.iter().all(|run| run.cancel.is_some()), "{active:?}");
    assert_eq!(who_asked(&*log, &ended).await, None);
}

async fn cancelling_a_run_leaves_its_children_alone(store: Store) {
    let log = store.open().await;
    let mut root = Owner::new("s", "root");
    root.open(&*log).await;
    let child = Owner::new("s", "child");
    log.open_run(OpenRun { parent: Some(root.run.clone()), ..child.opening() }).await.unwrap();
    cancel_one(&*log, of(&root)).await;
    assert_eq!(who_asked(&*log, &child).await, None);
}

async fn a_key_that_was_cancelled_before_its_run_was_there_flags_it_from_the_first_moment(store: Store) {
    let log = store.open().await;
    for name in ["new", "existing"] {
        let mut other = Owner::new("existing", "other");
        if name == "existing" {
            other.open(&*log).await;
        }
        let (mut owner, key) = (Owner::new(name, &format!("r-{name}")), "a key: 1 ü");
        for _ in 0..2 {
            let answer = log.cancel(request(name, CancelTarget::Key(key.into()))).await.unwrap();
            assert_eq!(answer, Cancelled::Remembered);
        }
        let opening = OpenRun { key: Some(key.into()), ..owner.opening() };
        for _ in 0..2 {
            let opened = log.open_run(opening.clone()).await.unwrap();
            assert!(matches!(opened, Opened::Open { flags: RunFlags { cancel: Some(_) }, .. }), "{opened:?}");
        }
        assert_eq!(who_asked(&*log, &owner).await.as_deref(), Some(BY));
        owner.n = 1;
        owner.ends(&*log, Terminal::Cancelled).await;
        assert_eq!(terminals(&*log, &owner).await, [Terminal::Cancelled]);
        // Only this key, and only once.
        for (run, key) in [("next", Some(key)), ("foreign", Some("a key: 2")), ("keyless", None)] {
            let owner = Owner::new(name, &format!("{run}-{name}"));
            let opening = OpenRun { key: key.map(Into::into), ..owner.opening() };
            let opened = log.open_run(opening).await.unwrap();
            assert!(matches!(opened, Opened::Open { flags: RunFlags { cancel: None }, .. }), "{opened:?}");
        }
    }
}

async fn a_key_finds_its_run_while_it_is_active_and_after_its_end(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let key = CancelTarget::Key("key".into());
    log.open_run(OpenRun { key: Some("key".into()), ..owner.opening() }).await.unwrap();
    owner.n = 1;
    let answer = log.cancel(request("s", key.clone())).await.unwrap();
    assert_eq!(answer, Cancelled::Runs(vec![(owner.run.clone(), requested())]));
    let offset = owner.ends(&*log, Terminal::Cancelled).await;
    let answer = log.cancel(request("s", key.clone())).await.unwrap();
    let ended = CancelOutcome::AlreadyEnded { offset, state: Terminal::Cancelled };
    assert_eq!(answer, Cancelled::Runs(vec![(owner.run, ended)]));
    // A key belongs to its session.
    assert_eq!(log.cancel(request("elsewhere", key)).await.unwrap(), Cancelled::Remembered);
}

async fn what_a_session_remembers_of_cancelled_keys_is_bounded(store: Store) {
    let log = store.open().await;
    let key = |i: usize| CancelTarget::Key(format!("key-{i}").into());
    for i in 0..1005 {
        assert_eq!(log.cancel(request("s", key(i))).await.unwrap(), Cancelled::Remembered);
    }
    let owner = Owner::new("s", "newest");
    let opened = log.open_run(OpenRun { key: Some("key-1004".into()), ..owner.opening() }).await.unwrap();
    assert!(matches!(opened, Opened::Open { flags: RunFlags { cancel: Some(_) }, .. }), "{opened:?}");
}

async fn of_a_cancel_a_terminal_and_a_takeover_at_once_exactly_one_terminal_comes(store: Store) {
    let log = store.open().await;
    for i in 0..20 {
        let mut owner = Owner::new("s", &format!("r{i}"));
        owner.open(&*log).await;
        let (cancelled, ended, taken) = tokio::join!(
            cancel_one(&*log, of(&owner)),
            log.append(owner.ending(Terminal::Completed)),
            log.takeover(owner.takeover("heir")),
        );
        let terminals = terminals(&*log, &owner).await;
        assert_eq!(terminals.len(), 1);
        match (ended.unwrap(), taken.unwrap()) {
            (Appended::Stored { .. }, TakenOver::AlreadyEnded { state: Terminal::Completed, .. }) => {
                assert_eq!(terminals, [Terminal::Completed]);
            }
            (Appended::Fenced, TakenOver::Ended { state, .. }) => assert_eq!(terminals, [state]),
            both => panic!("{both:?}"),
        }
        match cancelled {
            // It was asked for in time: a takeover that came later says so.
            CancelOutcome::Requested { .. } => assert_ne!(terminals, [Terminal::Interrupted]),
            CancelOutcome::AlreadyEnded { state, .. } => {
                assert_eq!(terminals, [state]);
                assert_ne!(state, Terminal::Cancelled);
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn a_cancel_of_a_key_and_the_opening_of_its_run_at_once_never_miss_each_other(store: Store) {
    let log = store.open().await;
    for i in 0..20 {
        let (owner, key) = (Owner::new("s", &format!("r{i}")), format!("key-{i}"));
        let opening = OpenRun { key: Some(key.clone().into()), ..owner.opening() };
        let (cancelled, opened) =
            tokio::join!(log.cancel(request("s", CancelTarget::Key(key.into()))), log.open_run(opening));
        let Opened::Open { flags, .. } = opened.unwrap() else { panic!("not open") };
        let before = cancelled.unwrap() == Cancelled::Remembered;
        assert_eq!(flags.cancel.is_some(), before);
        assert_eq!(who_asked(&*log, &owner).await.as_deref(), Some(BY));
    }
}

on_every_store!(
    a_cancelled_run_is_flagged_for_everybody_who_asks,
    cancelling_twice_is_answered_alike_and_the_first_to_ask_stays,
    what_is_not_there_is_not_found,
    a_takeover_of_a_cancelled_run_writes_cancelled,
    a_run_knows_its_parent_as_long_as_it_is_known,
    active_means_every_active_run_and_no_other,
    cancelling_a_run_leaves_its_children_alone,
    a_key_that_was_cancelled_before_its_run_was_there_flags_it_from_the_first_moment,
    a_key_finds_its_run_while_it_is_active_and_after_its_end,
    what_a_session_remembers_of_cancelled_keys_is_bounded,
    of_a_cancel_a_terminal_and_a_takeover_at_once_exactly_one_terminal_comes,
    a_cancel_of_a_key_and_the_opening_of_its_run_at_once_never_miss_each_other,
);
