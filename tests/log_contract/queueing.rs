//! Runs that wait until their route is free: bounded, in order, started once, by anybody.

use std::time::Duration;

use bytes::Bytes;
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

const LIMITS: QueueLimits = QueueLimits { depth: 8, bytes: 1000 };
const HOLD: Duration = Duration::from_secs(60);

/// A run of the route `chat` that would wait, with a key of its own.
fn waiting(name: &str) -> OpenRun {
    let item = Bytes::from(format!("{{\"body\":\"{name}\"}}\u{0}").into_bytes());
    let on_busy = OnBusy::Queue(Waiting { item, client: Some("phone 1".into()), limits: LIMITS });
    let key = Some(format!("key of {name}").into());
    OpenRun { key, route: "chat".into(), on_busy, ..Owner::new("s", name).opening() }
}

/// Opens `name` on the route `chat` beside the others.
async fn active(log: &dyn Log, name: &str) -> Owner {
    let mut owner = Owner::new("s", name);
    let opened = log.open_run(OpenRun { route: "chat".into(), ..owner.opening() }).await.unwrap();
    assert!(matches!(opened, Opened::Open { .. }), "{opened:?}");
    owner.n = 1;
    owner
}

async fn wait(log: &dyn Log, name: &str) -> u64 {
    match log.open_run(waiting(name)).await.unwrap() {
        Opened::Queued { position } => position,
        other => panic!("not queued: {other:?}"),
    }
}

/// The ids of those that wait.
async fn ids(log: &dyn Log) -> Vec<String> {
    log.queue(&session("s")).await.unwrap().into_iter().map(|queued| queued.run.to_string()).collect()
}

/// Ends the run; the run that its owner is to start.
async fn end(log: &dyn Log, owner: &mut Owner) -> Option<String> {
    match log.append(owner.ending(Terminal::Completed)).await.unwrap() {
        Appended::Stored { next, .. } => next.map(|run| run.to_string()),
        other => panic!("not stored: {other:?}"),
    }
}

/// What `by` is to start, by id, and whether others start something.
async fn starts(log: &dyn Log, by: &str, hold: Duration) -> (Vec<String>, bool) {
    let starts = log.start_queued(&session("s"), &instance(by), hold).await.unwrap();
    (starts.yours.into_iter().map(|start| start.run.to_string()).collect(), starts.others.is_some())
}

async fn a_run_that_finds_its_route_busy_waits_and_is_no_run_yet(store: Store) {
    let log = store.open().await;
    assert!(matches!(log.open_run(waiting("free")).await.unwrap(), Opened::Open { .. }), "nothing is busy yet");
    for _ in 0..2 {
        assert_eq!(wait(&*log, "first").await, 1, "a repeat finds it where it is");
    }
    assert_eq!(wait(&*log, "second").await, 2);

    let listed = log.queue(&session("s")).await.unwrap();
    let expected = QueuedRun {
        run: run_id("first"),
        key: Some("key of first".into()),
        route: "chat".into(),
        client: Some("phone 1".into()),
        item: "{\"body\":\"first\"}\u{0}".into(),
        position: 1,
        starting: None,
    };
    assert_eq!(listed[0], expected);
    assert_eq!((listed[1].run.as_str(), listed[1].position), ("second", 2));
    assert_eq!(log.run(&session("s"), &run_id("first")).await.unwrap(), None);
    assert_eq!(log.session_of(&run_id("first")).await.unwrap(), None);
    assert_eq!(live(&*log, &session("s")).await.active.len(), 1);
    assert_eq!(read_all(&*log, &session("s")).await.len(), 1);
}

async fn only_active_roots_and_the_waiting_of_the_same_route_make_it_busy(store: Store) {
    let log = store.open().await;
    let mut root = active(&*log, "root").await;
    let child = OpenRun { parent: Some(root.run.clone()), ..waiting("child") };
    assert!(matches!(log.open_run(child).await.unwrap(), Opened::Open { .. }), "a child is never held back");
    let elsewhere = OpenRun { route: "other route".into(), ..waiting("elsewhere") };
    assert!(matches!(log.open_run(elsewhere.clone()).await.unwrap(), Opened::Open { .. }));
    let behind = OpenRun { run: run_id("behind"), nonce: "n".into(), ..elsewhere };
    assert_eq!(log.open_run(behind).await.unwrap(), Opened::Queued { position: 1 });

    let reject = OpenRun { on_busy: OnBusy::Reject, ..waiting("rejected") };
    assert_eq!(log.open_run(reject.clone()).await.unwrap(), Opened::Busy { runs: vec![root.run.clone()] });
    assert_eq!(wait(&*log, "first").await, 1, "the place is that in its route");
    let busy = Opened::Busy { runs: vec![root.run.clone(), run_id("first")] };
    assert_eq!(log.open_run(reject.clone()).await.unwrap(), busy);

    // The root's child is active still; the route is free, but for those who wait for it.
    assert_eq!(end(&*log, &mut root).await.as_deref(), Some("first"));
    assert_eq!(log.open_run(reject.clone()).await.unwrap(), Opened::Busy { runs: vec![run_id("first")] });
    assert_eq!(wait(&*log, "second").await, 2, "nobody overtakes");
    for name in ["first", "second"] {
        log.withdraw(&session("s"), &format!("key of {name}")).await.unwrap();
    }
    assert!(matches!(log.open_run(reject).await.unwrap(), Opened::Open { .. }));
}

async fn a_queue_is_bounded_in_runs_and_in_bytes(store: Store) {
    let log = store.open().await;
    active(&*log, "root").await;
    for i in 1..=LIMITS.depth {
        assert_eq!(wait(&*log, &format!("r{i}")).await, i as u64);
    }
    assert_eq!(log.open_run(waiting("one-more")).await.unwrap(), Opened::QueueFull);
    assert_eq!(wait(&*log, "r1").await, 1, "who has a place keeps it");
    for i in 2..=LIMITS.depth {
        log.withdraw(&session("s"), &format!("key of r{i}")).await.unwrap().unwrap();
    }
    let sized = |name: &str, bytes: usize| {
        let on_busy = OnBusy::Queue(Waiting { item: vec![0xff; bytes].into(), client: None, limits: LIMITS });
        OpenRun { on_busy, ..waiting(name) }
    };
    let free = LIMITS.bytes as usize - log.queue(&session("s")).await.unwrap()[0].item.len();
    assert_eq!(log.open_run(sized("large", free + 1)).await.unwrap(), Opened::QueueFull);
    assert_eq!(log.open_run(sized("fits", free)).await.unwrap(), Opened::Queued { position: 2 });
    assert_eq!(log.open_run(sized("empty", 0)).await.unwrap(), Opened::Queued { position: 3 });
    assert_eq!(ids(&*log).await, ["r1", "fits", "empty"]);
}

async fn the_end_of_a_run_hands_its_owner_the_next_one(store: Store) {
    let log = store.open().await;
    let mut root = active(&*log, "root").await;
    let mut beside = active(&*log, "beside").await;
    wait(&*log, "first").await;
    wait(&*log, "second").await;
    assert_eq!(starts(&*log, "inst-1", HOLD).await, (vec![], false), "the route is busy");
    assert_eq!(end(&*log, &mut root).await, None, "another root is active");
    assert_eq!(end(&*log, &mut beside).await.as_deref(), Some("first"));

    assert_eq!(starts(&*log, "other", HOLD).await, (vec![], true), "it is marked for the owner of the terminal");
    let mine = log.start_queued(&session("s"), &instance("inst-1"), HOLD).await.unwrap();
    let item = Bytes::from_static(b"{\"body\":\"first\"}\0");
    let (key, client) = (Some("key of first".into()), Some("phone 1".into()));
    let expected = ToStart { run: run_id("first"), key, route: "chat".into(), client, item };
    assert_eq!(mine, Starts { yours: vec![expected], others: None });
    let listed = log.queue(&session("s")).await.unwrap();
    assert_eq!(listed[0].starting, Some(instance("inst-1")));
    assert_eq!(listed[1].starting, None);

    let mut first = active(&*log, "first").await;
    assert_eq!(ids(&*log).await, ["second"]);
    assert_eq!(end(&*log, &mut first).await.as_deref(), Some("second"));
    let mut second = active(&*log, "second").await;
    assert_eq!(end(&*log, &mut second).await, None);
    assert_eq!(ids(&*log).await, Vec::<String>::new());
}

/// The symptom: who had the mark found the route busy and gave up, and who had made it busy left the mark alone.
async fn the_end_of_a_run_that_came_between_hands_on_what_another_was_to_start(store: Store) {
    let log = store.open().await;
    let mut root = active(&*log, "root").await;
    wait(&*log, "first").await;
    assert_eq!(end(&*log, &mut root).await.as_deref(), Some("first"));
    let mut between = Owner { instance: instance("other"), ..Owner::new("s", "between") };
    log.open_run(OpenRun { route: "chat".into(), ..between.opening() }).await.unwrap();
    between.n = 1;
    assert_eq!(starts(&*log, "inst-1", HOLD).await.0, Vec::<String>::new(), "the route is busy");
    assert_eq!(end(&*log, &mut between).await.as_deref(), Some("first"));
    assert_eq!(starts(&*log, "other", HOLD).await.0, ["first"]);
}

async fn the_end_of_a_child_starts_nothing(store: Store) {
    let log = store.open().await;
    let mut root = active(&*log, "root").await;
    let mut child = Owner::new("s", "child");
    let opening = OpenRun { parent: Some(root.run.clone()), route: "chat".into(), ..child.opening() };
    log.open_run(opening).await.unwrap();
    child.n = 1;
    wait(&*log, "first").await;
    assert_eq!(end(&*log, &mut child).await, None);
    assert_eq!(end(&*log, &mut root).await.as_deref(), Some("first"));
}

async fn a_mark_whose_time_has_passed_counts_for_nothing(store: Store) {
    let log = store.open().await;
    let mut root = active(&*log, "root").await;
    wait(&*log, "first").await;
    end(&*log, &mut root).await;
    // The owner of the terminal takes it, and dies before it opened the run.
    let short = Duration::from_millis(300);
    assert_eq!(starts(&*log, "inst-1", short).await, (vec!["first".to_owned()], false));
    let heir = async {
        loop {
            let starts = log.start_queued(&session("s"), &instance("heir"), HOLD).await.unwrap();
            match starts.others {
                Some(left) => {
                    assert!(left <= short, "{left:?}");
                    assert_eq!(starts.yours, vec![]);
                    tokio::time::sleep(left).await;
                }
                None => return starts.yours,
            }
        }
    };
    let yours = tokio::time::timeout(PATIENCE, heir).await.expect("the mark never ended");
    assert_eq!(yours[0].run, run_id("first"));
    assert_eq!(starts(&*log, "inst-1", HOLD).await, (vec![], true));
    assert_eq!(log.queue(&session("s")).await.unwrap()[0].starting, Some(instance("heir")));
}

async fn who_starts_a_run_holds_it_by_asking_again(store: Store) {
    let log = store.open().await;
    let mut root = active(&*log, "root").await;
    wait(&*log, "first").await;
    end(&*log, &mut root).await;
    let begun = std::time::Instant::now();
    let hold = Duration::from_millis(1000);
    while begun.elapsed() < hold * 2 {
        assert_eq!(starts(&*log, "inst-1", hold).await, (vec!["first".to_owned()], false));
        assert_eq!(starts(&*log, "other", hold).await, (vec![], true));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_queued_run_that_two_start_is_one_run(store: Store) {
    let log = store.open().await;
    for i in 0..10 {
        let mut root = active(&*log, &format!("root-{i}")).await;
        let name = format!("queued-{i}");
        wait(&*log, &name).await;
        end(&*log, &mut root).await;
        let opening = |nonce: &str| {
            let owner = Owner { nonce: nonce.to_owned().into(), ..Owner::new("s", &name) };
            OpenRun { route: "chat".into(), ..owner.opening() }
        };
        let (one, other) = tokio::join!(log.open_run(opening("one")), log.open_run(opening("other")));
        let outcomes = [one.unwrap(), other.unwrap()];
        let open = outcomes.iter().filter(|opened| matches!(opened, Opened::Open { .. })).count();
        let fenced = outcomes.iter().filter(|opened| **opened == Opened::Fenced).count();
        assert_eq!((open, fenced), (1, 1), "{outcomes:?}");
        assert_eq!(ids(&*log).await, Vec::<String>::new());
        let nonce = if outcomes[0] == Opened::Fenced { "other" } else { "one" };
        let mut started = Owner { nonce: nonce.into(), n: 1, ..Owner::new("s", &name) };
        // A repeat of the send that had queued it neither opens it nor queues it again.
        assert_eq!(log.open_run(waiting(&name)).await.unwrap(), Opened::Fenced);
        end(&*log, &mut started).await;
    }
}

async fn what_was_withdrawn_never_starts(store: Store) {
    let log = store.open().await;
    let mut root = active(&*log, "root").await;
    for name in ["first", "second", "third"] {
        wait(&*log, name).await;
    }
    for _ in 0..2 {
        assert_eq!(log.withdraw(&session("s"), "key of second").await.unwrap(), Some(run_id("second")));
    }
    assert_eq!(log.withdraw(&session("s"), "no such key").await.unwrap(), None);
    assert_eq!(log.withdraw(&session("nothing"), "key of first").await.unwrap(), None);
    assert_eq!(ids(&*log).await, ["first", "third"]);
    // Also a late repeat of its send finds that out, and who was about to start it.
    assert_eq!(log.open_run(waiting("second")).await.unwrap(), Opened::Closed(Closed::Unknown));
    end(&*log, &mut root).await;
    assert_eq!(starts(&*log, "inst-1", HOLD).await.0, ["first"]);
    assert_eq!(log.withdraw(&session("s"), "key of first").await.unwrap(), Some(run_id("first")));
    let late = log.open_run(OpenRun { route: "chat".into(), ..Owner::new("s", "first").opening() }).await.unwrap();
    assert_eq!(late, Opened::Closed(Closed::Unknown));
    assert_eq!(starts(&*log, "inst-1", HOLD).await.0, ["third"]);
}

async fn a_queued_run_is_cancelled_by_its_key_or_its_id(store: Store) {
    let log = store.open().await;
    active(&*log, "root").await;
    for name in ["first", "second"] {
        wait(&*log, name).await;
    }
    let keyless = OpenRun { key: None, ..waiting("keyless") };
    assert_eq!(log.open_run(keyless.clone()).await.unwrap(), Opened::Queued { position: 3 });
    let targets = [
        (CancelTarget::Key("key of first".into()), "first"),
        (CancelTarget::Run(run_id("second")), "second"),
        (CancelTarget::Run(run_id("keyless")), "keyless"),
    ];
    for (target, run) in targets {
        for _ in 0..2 {
            let request = CancelRequest { session: session("s"), target: target.clone(), by: "{}".into() };
            let withdrawn = Cancelled::Runs(vec![(run_id(run), CancelOutcome::Withdrawn)]);
            assert_eq!(log.cancel(request).await.unwrap(), withdrawn);
        }
    }
    assert_eq!(ids(&*log).await, Vec::<String>::new());
    assert_eq!(log.open_run(keyless).await.unwrap(), Opened::Closed(Closed::Unknown));
    let active = CancelRequest { session: session("s"), target: CancelTarget::Active, by: "{}".into() };
    let Cancelled::Runs(runs) = log.cancel(active).await.unwrap() else { panic!("no runs") };
    assert_eq!(runs.len(), 1, "what waits is not active");
}

async fn a_run_whose_key_was_cancelled_opens_flagged_and_does_not_wait(store: Store) {
    let log = store.open().await;
    active(&*log, "root").await;
    let target = CancelTarget::Key("key of late".into());
    let request = CancelRequest { session: session("s"), target, by: "{}".into() };
    assert_eq!(log.cancel(request).await.unwrap(), Cancelled::Remembered);
    let opened = log.open_run(waiting("late")).await.unwrap();
    assert!(matches!(opened, Opened::Open { flags: RunFlags { cancel: Some(_) }, .. }), "{opened:?}");
}

async fn of_a_withdrawal_and_a_start_at_once_exactly_one_wins(store: Store) {
    let log = store.open().await;
    for i in 0..20 {
        let mut root = active(&*log, &format!("root-{i}")).await;
        let name = format!("queued-{i}");
        wait(&*log, &name).await;
        end(&*log, &mut root).await;
        let key = format!("key of {name}");
        let mut started = Owner::new("s", &name);
        let opening = OpenRun { key: Some(key.clone().into()), route: "chat".into(), ..started.opening() };
        let s = session("s");
        let (withdrawn, opened) = tokio::join!(log.withdraw(&s, &key), log.open_run(opening));
        match (withdrawn.unwrap(), opened.unwrap()) {
            (None, Opened::Open { flags, .. }) => {
                assert!(flags.cancel.is_none());
                started.n = 1;
                end(&*log, &mut started).await;
            }
            (Some(run), Opened::Closed(Closed::Unknown)) => assert_eq!(run, started.run),
            both => panic!("{both:?}"),
        }
        assert_eq!(ids(&*log).await, Vec::<String>::new());
    }
}

async fn a_takeover_leaves_a_queued_run_in_its_place(store: Store) {
    let log = store.open().await;
    let root = active(&*log, "root").await;
    wait(&*log, "first").await;
    // The instance that had queued it, and drove what made it wait, is dead.
    let queued = Owner::new("s", "first");
    assert_eq!(log.takeover(queued.takeover("heir")).await.unwrap(), TakenOver::Queued);
    assert_eq!(ids(&*log).await, ["first"]);
    assert!(matches!(log.takeover(root.takeover("heir")).await.unwrap(), TakenOver::Ended { .. }));
    assert_eq!(log.takeover(queued.takeover("heir")).await.unwrap(), TakenOver::Queued);

    assert_eq!(starts(&*log, "heir", HOLD).await, (vec!["first".to_owned()], false));
    let opening = OpenRun { owner: instance("heir"), nonce: "heir's".into(), route: "chat".into(), ..queued.opening() };
    assert!(matches!(log.open_run(opening).await.unwrap(), Opened::Open { .. }));
    assert_eq!(ids(&*log).await, Vec::<String>::new());
}

async fn every_free_route_starts_one(store: Store) {
    let log = store.open().await;
    let mut owners = Vec::new();
    for route in ["a", "b", "c"] {
        let owner = Owner::new("s", &format!("root-{route}"));
        log.open_run(OpenRun { route: route.into(), ..owner.opening() }).await.unwrap();
        for i in 1..=2 {
            let opening = OpenRun { route: route.into(), ..waiting(&format!("{route}{i}")) };
            assert_eq!(log.open_run(opening).await.unwrap(), Opened::Queued { position: i });
        }
        owners.push(owner);
    }
    for owner in &owners[..2] {
        assert!(matches!(log.takeover(owner.takeover("heir")).await.unwrap(), TakenOver::Ended { .. }));
    }
    assert_eq!(starts(&*log, "heir", HOLD).await.0, ["a1", "b1"]);
}

async fn erasing_a_session_erases_what_waits(store: Store) {
    let log = store.open().await;
    active(&*log, "root").await;
    wait(&*log, "first").await;
    assert!(log.erase(&session("s")).await.unwrap());
    assert_eq!(ids(&*log).await, Vec::<String>::new());
    assert_eq!(starts(&*log, "inst-1", HOLD).await, (vec![], false));
    active(&*log, "anew").await;
    assert_eq!(ids(&*log).await, Vec::<String>::new());
    assert_eq!(wait(&*log, "first-anew").await, 1);
}

/// The symptom: whoever was starting a queued run made the session anew that had just been erased.
async fn who_starts_a_queued_run_that_is_gone_opens_nothing(store: Store) {
    let log = store.open().await;
    let mut root = active(&*log, "root").await;
    for name in ["first", "second", "third"] {
        wait(&*log, name).await;
    }
    end(&*log, &mut root).await;
    let start = |name: &str| OpenRun { on_busy: OnBusy::Waited, ..waiting(name) };
    assert_eq!(starts(&*log, "inst-1", HOLD).await.0, ["first"]);
    for _ in 0..2 {
        assert!(matches!(log.open_run(start("first")).await.unwrap(), Opened::Open { .. }), "a repeat is safe");
    }
    log.withdraw(&session("s"), "key of second").await.unwrap();
    assert_eq!(log.open_run(start("second")).await.unwrap(), Opened::Closed(Closed::Unknown));
    assert_eq!(ids(&*log).await, ["third"]);
    log.erase(&session("s")).await.unwrap();
    for name in ["third", "nobody"] {
        assert_eq!(log.open_run(start(name)).await.unwrap(), Opened::Closed(Closed::Unknown), "{name}");
    }
    assert!(matches!(log.bounds(&session("s")).await.unwrap(), Bounds::Erased));
}

/// The symptom: a run that the store had lost was written once more into a session that was erased in that moment.
async fn who_opens_a_lost_run_again_does_not_make_an_erased_session_anew(store: Store) {
    let log = store.open().await;
    active(&*log, "root").await;
    let again = |name: &str| OpenRun { on_busy: OnBusy::Again, ..waiting(name) };
    assert!(matches!(log.open_run(again("lost")).await.unwrap(), Opened::Open { .. }), "beside the others");
    log.erase(&session("s")).await.unwrap();
    assert_eq!(log.open_run(again("also-lost")).await.unwrap(), Opened::Closed(Closed::Erased));
    assert!(matches!(log.bounds(&session("s")).await.unwrap(), Bounds::Erased));
}

async fn a_session_that_expired_leaves_nothing_waiting(store: Store) {
    let retention = Retention { ttl: Duration::from_millis(400), ..Retention::default() };
    let log = store.open_with(retention).await;
    let mut root = active(&*log, "root").await;
    wait(&*log, "first").await;
    end(&*log, &mut root).await;
    let gone = async {
        while !matches!(log.bounds(&session("s")).await.unwrap(), Bounds::Expired { .. }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it never expired");
    assert_eq!(ids(&*log).await, Vec::<String>::new());
    assert_eq!(starts(&*log, "inst-1", HOLD).await, (vec![], false));
    active(&*log, "anew").await;
    assert_eq!(ids(&*log).await, Vec::<String>::new());
}

on_every_store!(
    a_run_that_finds_its_route_busy_waits_and_is_no_run_yet,
    only_active_roots_and_the_waiting_of_the_same_route_make_it_busy,
    a_queue_is_bounded_in_runs_and_in_bytes,
    the_end_of_a_run_hands_its_owner_the_next_one,
    the_end_of_a_run_that_came_between_hands_on_what_another_was_to_start,
    the_end_of_a_child_starts_nothing,
    a_mark_whose_time_has_passed_counts_for_nothing,
    who_starts_a_run_holds_it_by_asking_again,
    a_queued_run_that_two_start_is_one_run,
    what_was_withdrawn_never_starts,
    a_queued_run_is_cancelled_by_its_key_or_its_id,
    a_run_whose_key_was_cancelled_opens_flagged_and_does_not_wait,
    of_a_withdrawal_and_a_start_at_once_exactly_one_wins,
    a_takeover_leaves_a_queued_run_in_its_place,
    every_free_route_starts_one,
    erasing_a_session_erases_what_waits,
    who_starts_a_queued_run_that_is_gone_opens_nothing,
    who_opens_a_lost_run_again_does_not_make_an_erased_session_anew,
    a_session_that_expired_leaves_nothing_waiting,
);
