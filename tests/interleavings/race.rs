//! Two instances, everybody at once: runs that are sent, queued, started, driven, left behind,
//! cancelled, withdrawn and taken over, answers that get lost, and readers who come and go.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use sidestream::hub::{Hub, HubLimits};
use sidestream::log::*;
use sidestream::session::*;
use sidestream::telemetry::Metrics;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::plan::{Dice, PATIENCE, give_way, play};
use crate::readers::{Reader, reader, readers};
use crate::stores::{OpenStore, Store};
use crate::verdict;

/// What a session's queue holds at most.
const LIMITS: QueueLimits = QueueLimits { depth: 4, bytes: 1 << 20 };

/// How long whoever starts a queued run has for it. Shorter than some take.
const HOLD: Duration = Duration::from_millis(15);

/// What happens.
#[derive(Clone, Debug)]
pub struct Plan {
    seed: u64,
    pub sends: Vec<Send>,
    others: Vec<Other>,
    readers: Vec<Reader>,
    /// Batches of one who writes to the session directly.
    pub written: u64,
}

/// A run that somebody asks for.
#[derive(Clone, Debug)]
pub struct Send {
    at: usize,
    pub busy: Busy,
    batches: u64,
    end: Ending,
    pauses: u64,
}

/// What it does where its route is busy. Each kind has a route of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    Queue,
    Reject,
    Parallel,
}

/// How its owner ends it, where nobody is faster.
#[derive(Clone, Copy, Debug)]
enum Ending {
    State(Terminal),
    /// It is gone: others take over.
    Gone,
}

/// What somebody else does, some time.
#[derive(Clone, Debug)]
struct Other {
    at: usize,
    pauses: u64,
    does: Does,
}

#[derive(Clone, Debug)]
enum Does {
    Cancel(usize),
    CancelKey(usize),
    CancelActive,
    Withdraw(usize),
    TakeOver(usize),
    List,
}

fn plans() -> impl Strategy<Value = Plan> {
    let busy = prop_oneof![3 => Just(Busy::Queue), 1 => Just(Busy::Reject), 2 => Just(Busy::Parallel)];
    let state = prop_oneof![Just(Terminal::Completed), Just(Terminal::Failed)];
    let end = prop_oneof![3 => state.prop_map(Ending::State), 1 => Just(Ending::Gone)];
    let send = (0..2usize, busy, 0..8u64, end, 0..6u64).prop_map(|(at, busy, batches, end, pauses)| Send {
        at,
        busy,
        batches,
        end,
        pauses,
    });
    (any::<u64>(), prop::collection::vec(send, 1..10), 0..8u64).prop_flat_map(|(seed, sends, written)| {
        let one = 0..sends.len();
        let does = prop_oneof![
            4 => one.clone().prop_map(Does::Cancel),
            2 => one.clone().prop_map(Does::CancelKey),
            1 => Just(Does::CancelActive),
            2 => one.clone().prop_map(Does::Withdraw),
            3 => one.prop_map(Does::TakeOver),
            1 => Just(Does::List),
        ];
        let other = (0..2usize, 0..12u64, does).prop_map(|(at, pauses, does)| Other { at, pauses, does });
        let plan = (prop::collection::vec(other, 0..8), readers());
        plan.prop_map(move |(others, readers)| Plan { seed, sends: sends.clone(), others, readers, written })
    })
}

/// What is known of a run, by what the log has told anybody.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// So many entries have been acknowledged, so many were sent.
    pub acknowledged: u64,
    pub attempted: u64,
    /// Owners that were told that they have opened it.
    pub owners: Vec<String>,
    /// When its place in the queue was first asked for, and when somebody was told of it.
    pub asked: u64,
    pub queued: Option<u64>,
    /// It is not held back: it was opened with its cancellation, or may have been.
    pub exempt: bool,
    /// Nothing of it may be in the log.
    pub refused: Option<&'static str>,
    /// When somebody was first told that it is cancelled.
    pub cancelled: Option<u64>,
    /// Its terminal, as everybody was told.
    pub ends: Vec<(Offset, Terminal)>,
    /// A takeover that was asked for after this has written it.
    pub taken_over: Option<u64>,
}

/// A session and everybody in it.
pub struct World {
    pub logs: [Arc<dyn Log>; 2],
    pub hubs: [Arc<Hub>; 2],
    pub session: SessionId,
    pub plan: Plan,
    clock: AtomicU64,
    known: Mutex<Vec<Known>>,
    failed: Mutex<Option<String>>,
    tasks: TaskTracker,
}

impl World {
    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + std::marker::Send + 'static) {
        let world = self.clone();
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                world.failed.lock().unwrap().get_or_insert(text.unwrap_or_default());
            }
        });
    }

    /// What everybody knows. Not to be held over an await.
    pub fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap()
    }

    /// Before what is asked from now on, after what was told until now.
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    pub fn run(&self, i: usize) -> RunId {
        RunId::parse(&format!("{}.{i}", self.session)).unwrap()
    }

    fn index(&self, run: &RunId) -> usize {
        run.as_str().rsplit_once('.').unwrap().1.parse().unwrap()
    }

    pub fn text(&self, i: usize, n: u64) -> String {
        format!("{i}-{n}")
    }

    fn key(&self, i: usize) -> ByteString {
        format!("key {i}").into()
    }

    fn instance(&self, at: usize) -> InstanceId {
        InstanceId::parse(&format!("{}-i{at}", self.session)).unwrap()
    }

    fn opening(&self, i: usize, at: usize, nonce: &str, on_busy: OnBusy) -> OpenRun {
        let records = vec![Record::run_state(self.run(i), RunState::Started, "{}")];
        let route = ["queues", "rejects", "free"][self.plan.sends[i].busy as usize];
        let nonce = nonce.to_owned().into();
        let opening = OpenRun::new(self.session.clone(), self.run(i), self.instance(at), nonce, records);
        OpenRun { key: Some(self.key(i)), route: route.into(), on_busy, ..opening }
    }

    async fn send(self: Arc<Self>, i: usize) {
        let Send { at, busy, pauses, .. } = self.plan.sends[i];
        let mut dice = Dice::new(self.plan.seed, i);
        for _ in 0..pauses {
            dice.pause().await;
        }
        let on_busy = match busy {
            Busy::Parallel => OnBusy::Parallel,
            Busy::Reject => OnBusy::Reject,
            Busy::Queue => OnBusy::Queue(Waiting { item: self.item(i), client: None, limits: LIMITS }),
        };
        let opening = self.opening(i, at, "sent", on_busy);
        self.known()[i].asked = self.now();
        self.known()[i].attempted = 1;
        match insist(&mut dice, || self.logs[at].open_run(opening.clone())).await {
            Opened::Open { flags, .. } => self.drive(i, at, "sent", flags, dice).await,
            Opened::Queued { position } => {
                assert!(position >= 1 && position <= LIMITS.depth as u64, "{position}");
                let now = self.now();
                self.known()[i].queued = Some(now);
            }
            Opened::QueueFull => self.known()[i].refused = Some("the queue was full"),
            Opened::Busy { runs } => {
                assert!(!runs.is_empty(), "busy with nothing");
                self.known()[i].refused = Some("the route was busy");
            }
            // It waited, and was started before an answer came; or was withdrawn, or taken over.
            Opened::Fenced => {}
            Opened::Closed(closed) => self.closed(i, &closed),
        }
    }

    fn item(&self, i: usize) -> Bytes {
        format!("item {i}").into()
    }

    /// The owner `nonce` at instance `at` drives the run, which it has opened, to its end.
    async fn drive(self: Arc<Self>, i: usize, at: usize, nonce: &str, flags: RunFlags, mut dice: Dice) {
        let Send { batches, end, .. } = self.plan.sends[i];
        {
            let known = &mut self.known()[i];
            known.owners.push(nonce.to_owned());
            known.acknowledged = known.acknowledged.max(1);
            known.exempt |= flags.cancel.is_some();
        }
        let (mut n, mut cancelled) = (1, flags.cancel.is_some());
        for _ in 0..batches {
            if cancelled {
                break;
            }
            dice.pause().await;
            // Some of it was sent before.
            let back = dice.below(3).min(n - 1);
            let last = n + 1 + dice.below(4);
            let records = (n + 1 - back..=last).map(|n| self.event(i, n)).collect();
            match self.append(i, at, nonce, n + 1 - back, records, &mut dice).await {
                Some((_, flags)) => (n, cancelled) = (last, flags.cancel.is_some()),
                None => return,
            }
        }
        let state = match end {
            Ending::Gone => {
                // It is a while until others notice.
                for heir in [1 - at, at] {
                    let mut dice = Dice::new(self.plan.seed, 100 * i + heir);
                    let world = self.clone();
                    self.spawn(async move {
                        for _ in 0..dice.below(10) {
                            dice.pause().await;
                        }
                        world.take_over(i, heir, dice).await;
                    });
                }
                return;
            }
            _ if cancelled => Terminal::Cancelled,
            Ending::State(state) => state,
        };
        let terminal = Record::run_state(self.run(i), RunState::Ended(state), "{}");
        if let Some((last, _)) = self.append(i, at, nonce, n + 1, vec![terminal], &mut dice).await {
            self.known()[i].ends.push((last, state));
        }
        self.freed(at, dice).await;
    }

    fn event(&self, i: usize, n: u64) -> Record {
        let (run, data) = (Some(self.run(i)), self.text(i, n).into());
        Record { kind: Kind::Event, run, source: None, event: None, id: None, data }
    }

    /// Appends the entries of the run from `first_n` on; `None`: the run is not the owner's any more.
    async fn append(
        &self,
        i: usize,
        at: usize,
        nonce: &str,
        first_n: u64,
        records: Vec<Record>,
        dice: &mut Dice,
    ) -> Option<(Offset, RunFlags)> {
        let last_n = first_n + records.len() as u64 - 1;
        let fence = Fence { counter: 1, nonce: nonce.to_owned().into() };
        let writer = Writer::Run { run: self.run(i), fence };
        let append = Append { session: self.session.clone(), writer, first_n, records, seen: None, skips: false };
        {
            let known = &mut self.known()[i];
            known.attempted = known.attempted.max(last_n);
        }
        match insist(dice, || self.logs[at].append(append.clone())).await {
            Appended::Stored { last, flags, .. } | Appended::Duplicate { last, flags } => {
                let known = &mut self.known()[i];
                known.acknowledged = known.acknowledged.max(last_n);
                Some((last, flags))
            }
            Appended::Fenced => None,
            Appended::Closed(closed) => {
                self.closed(i, &closed);
                None
            }
            other => panic!("run {i}: {other:?}"),
        }
    }

    fn closed(&self, i: usize, closed: &Closed) {
        match closed {
            Closed::Terminal { offset, state } => self.known()[i].ends.push((*offset, *state)),
            Closed::Unknown => {}
            other => panic!("run {i}: {other:?}"),
        }
    }

    /// Starts what waited, at instance `at`.
    async fn freed(self: &Arc<Self>, at: usize, mut dice: Dice) {
        let by = self.instance(at);
        let starts = insist(&mut dice, || self.logs[at].start_queued(&self.session, &by, HOLD)).await;
        for waited in starts.yours {
            let i = self.index(&waited.run);
            assert_eq!((waited.item, waited.key), (self.item(i), Some(self.key(i))), "run {i}");
            let nonce = format!("started at {at}, {}", self.now());
            self.spawn(self.clone().start(i, at, nonce, dice.clone()));
        }
    }

    /// Boxed: what it leads to may start others.
    fn start(self: Arc<Self>, i: usize, at: usize, nonce: String, mut dice: Dice) -> BoxFuture<'static, ()> {
        async move {
            match dice.below(8) {
                // It dies over it.
                0 => return,
                // It is late.
                1 => tokio::time::sleep(HOLD * 2).await,
                _ => dice.pause().await,
            }
            let opening = self.opening(i, at, &nonce, OnBusy::Parallel);
            match insist(&mut dice, || self.logs[at].open_run(opening.clone())).await {
                Opened::Open { flags, .. } => self.drive(i, at, &nonce, flags, dice).await,
                Opened::Fenced => {}
                Opened::Closed(closed) => self.closed(i, &closed),
                other => panic!("run {i}, started: {other:?}"),
            }
        }
        .boxed()
    }

    async fn take_over(self: Arc<Self>, i: usize, at: usize, mut dice: Dice) {
        dice.pause().await;
        let asked = self.now();
        let (session, run) = (self.session.clone(), self.run(i));
        let nonce = format!("heir at {at}, {asked}").into();
        let takeover = Takeover { session, run, nonce, details: "{}".into() };
        match insist(&mut dice, || self.logs[at].takeover(takeover.clone())).await {
            TakenOver::Ended { offset, state } => {
                let known = &mut self.known()[i];
                known.ends.push((offset, state));
                known.taken_over = Some(asked);
            }
            TakenOver::AlreadyEnded { offset, state } => self.known()[i].ends.push((offset, state)),
            TakenOver::NeverStarted => self.known()[i].refused = Some("it never started"),
            TakenOver::Queued => {}
            TakenOver::Closed(closed) => self.closed(i, &closed),
        }
        self.freed(at, dice).await;
    }

    async fn meddle(self: Arc<Self>, number: usize) {
        let Other { at, pauses, does } = self.plan.others[number].clone();
        let mut dice = Dice::new(self.plan.seed, 1000 + number);
        for _ in 0..pauses {
            dice.pause().await;
        }
        match does {
            Does::Cancel(i) => self.cancel(at, CancelTarget::Run(self.run(i)), &mut dice).await,
            Does::CancelKey(i) => {
                self.known()[i].exempt = true;
                self.cancel(at, CancelTarget::Key(self.key(i)), &mut dice).await;
            }
            Does::CancelActive => self.cancel(at, CancelTarget::Active, &mut dice).await,
            Does::Withdraw(i) => {
                let key = self.key(i);
                let withdrawn = insist(&mut dice, || self.logs[at].withdraw(&self.session, &key)).await;
                if let Some(run) = withdrawn {
                    assert_eq!(run, self.run(i));
                    self.known()[i].refused = Some("it was withdrawn");
                }
            }
            Does::TakeOver(i) => self.take_over(i, at, dice).await,
            Does::List => {
                let queued = self.logs[at].queue(&self.session).await.unwrap();
                assert!(queued.len() <= LIMITS.depth, "{queued:?}");
                let places: Vec<u64> = queued.iter().map(|queued| queued.position).collect();
                assert_eq!(places, (1..=queued.len() as u64).collect::<Vec<_>>(), "{queued:?}");
            }
        }
    }

    async fn cancel(&self, at: usize, target: CancelTarget, dice: &mut Dice) {
        let request = CancelRequest { session: self.session.clone(), target, by: r#"{"client":"c"}"#.into() };
        let cancelled = insist(dice, || self.logs[at].cancel(request.clone())).await;
        let now = self.now();
        let Cancelled::Runs(runs) = cancelled else { return };
        for (run, outcome) in runs {
            let known = &mut self.known()[self.index(&run)];
            match outcome {
                CancelOutcome::Requested { .. } => {
                    known.cancelled.get_or_insert(now);
                }
                CancelOutcome::AlreadyEnded { offset, state } => known.ends.push((offset, state)),
                CancelOutcome::Withdrawn => known.refused = Some("it was withdrawn by a cancel"),
                CancelOutcome::NotFound => {}
            }
        }
    }

    /// Writes to the session directly.
    async fn write(self: Arc<Self>) {
        let mut dice = Dice::new(self.plan.seed, 5000);
        for n in 0..self.plan.written {
            dice.pause().await;
            let again = dice.below(2).min(n);
            let record = |n: u64| {
                let data = format!("written {n}").into();
                Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data }
            };
            let records = (n - again..=n).map(record).collect();
            let writer = Writer::Producer { id: "writer".into(), epoch: 1 };
            let append = Append {
                session: self.session.clone(),
                writer,
                first_n: n - again + 1,
                records,
                seen: None,
                skips: false,
            };
            match insist(&mut dice, || self.logs[n as usize % 2].append(append.clone())).await {
                Appended::Stored { .. } | Appended::Duplicate { .. } => {}
                other => panic!("written {n}: {other:?}"),
            }
        }
    }

    /// Ends what is left: dead owners are found, what waits is started, by whoever is there.
    async fn settle(self: &Arc<Self>) {
        let mut dice = Dice::new(self.plan.seed, 6000);
        loop {
            self.tasks.close();
            self.tasks.wait().await;
            if let Some(failed) = self.failed.lock().unwrap().take() {
                panic!("{failed}");
            }
            let at = dice.below(2) as usize;
            let active = match self.logs[at].bounds(&self.session).await.unwrap() {
                Bounds::Live(bounds) => bounds.active,
                _ => Vec::new(),
            };
            let queued = self.logs[1 - at].queue(&self.session).await.unwrap();
            if active.is_empty() && queued.is_empty() {
                return;
            }
            self.tasks.reopen();
            for run in active {
                self.spawn(self.clone().take_over(self.index(&run.run), at, dice.clone()));
            }
            self.freed(at, dice.clone()).await;
            self.freed(1 - at, dice.clone()).await;
            dice.pause().await;
        }
    }
}

/// Asks until the answer is definite. Now and then the answer gets lost: what was asked has happened,
/// or nobody knows whether it has, and it is asked again.
pub async fn insist<'a, T>(dice: &mut Dice, mut ask: impl FnMut() -> Answer<'a, T>) -> T {
    loop {
        match dice.below(8) {
            0 => drop(ask().await),
            1 => {
                let turns = dice.below(4);
                tokio::select! {
                    biased;
                    _ = ask() => {}
                    () = give_way(turns) => {}
                }
            }
            _ => match ask().await {
                Ok(answer) => return answer,
                Err(_) => dice.pause().await,
            },
        }
    }
}

fn hub(log: Arc<dyn Log>) -> Arc<Hub> {
    // A ring of few entries, so that readers fall behind it.
    Hub::new(log, HubLimits { ring_bytes: 4 << 10 }, Metrics::new(), TaskTracker::new()).0
}

async fn race(store: &OpenStore, other: &Arc<dyn Log>, number: u64, plan: Plan) {
    let logs = [store.handle(), other.clone()];
    let world = Arc::new(World {
        hubs: [hub(logs[0].clone()), hub(logs[1].clone())],
        logs,
        session: SessionId::parse(&format!("s{number}")).unwrap(),
        clock: AtomicU64::new(1),
        known: Mutex::new(vec![Known::default(); plan.sends.len()]),
        failed: Mutex::new(None),
        tasks: TaskTracker::new(),
        plan,
    });
    let (over, until) = watch::channel(None);
    let readers: Vec<_> = (0..world.plan.readers.len())
        .map(|i| tokio::spawn(reader(world.clone(), world.plan.readers[i].clone(), until.clone())))
        .collect();
    for i in 0..world.plan.sends.len() {
        world.spawn(world.clone().send(i));
    }
    for i in 0..world.plan.others.len() {
        world.spawn(world.clone().meddle(i));
    }
    world.spawn(world.clone().write());
    tokio::time::timeout(PATIENCE, world.settle()).await.expect("the session never settled");
    let entries = verdict::of_the_log(&world).await;
    over.send_replace(Some(entries.last().map_or(Offset::ZERO, |entry| entry.offset)));
    for reader in readers {
        let seen = tokio::time::timeout(PATIENCE, reader).await.expect("a reader never came to the end");
        verdict::of_a_reader(&entries, &seen.unwrap());
    }
}

async fn whatever_falls_together_each_run_ends_once_nothing_acknowledged_is_lost_and_readers_see_an_exact_slice(
    store: Store,
) {
    let store = store.open().await;
    let other = store.another_instance().await;
    play(plans(), async |number, plan| race(&store, &other, number, plan).await).await;
}

on_every_store!(whatever_falls_together_each_run_ends_once_nothing_acknowledged_is_lost_and_readers_see_an_exact_slice);
