//! The runs that this instance drives.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::dialect::Dialects;
use crate::log::{Command, Doubts, Log, Opened, START_WITHIN, ToStart};
use crate::run::call::Found;
use crate::run::caller::{Caller, caller};
use crate::run::orders::{Registry, orders};
use crate::run::owner::{Feed, Owner, RunSpec};
use crate::run::remembered::Remembered;
use crate::run::seats::Seats;
use crate::run::steering::steer;
use crate::run::takeover::{definite, take_over};
use crate::run::{Call, CallerBody, Driven, SideCall, Values};
use crate::server::Body;
use crate::session::{InstanceId, Offset, RunId, SessionId};
use crate::telemetry::{CancelCalled, Fact, Metrics};

/// Bounds of runs, the same for all.
#[derive(Clone, Debug)]
pub struct RunsSettings {
    /// The dialects that their events may be of.
    pub dialects: Arc<Dialects>,
    /// Largest event that is kept, bytes.
    pub event_bytes: usize,
    /// Bytes of unfinished and unstored events of all runs together; then backpressure on runs whose
    /// events wait for the store.
    pub pending_bytes: u64,
    /// Longest run; then it is cancelled.
    pub run_duration: Duration,
    /// Bytes a direct caller may be behind before it is cut off.
    pub caller_buffer: usize,
    /// How long a direct caller waits for the store before it is served without it.
    pub eager_after: Duration,
    /// How long a run waits for a store that is away.
    pub outage_limit: Duration,
}

/// The runs that this instance drives.
pub struct Runs {
    pub(super) log: Arc<dyn Log>,
    life: Mutex<Life>,
    pub(super) settings: RunsSettings,
    pub(super) metrics: Metrics,
    pub(super) pending: AtomicU64,
    /// Bytes of what owners of active runs have appended and keep.
    pub(super) retained: AtomicUsize,
    pub(super) doubts: Arc<Doubts>,
    pub(super) remembered: Remembered,
    pub(super) driven: Registry,
    starter: OnceLock<Weak<dyn StartQueued>>,
    /// Of which routes it was said that they are not of their dialect: no more than a configuration has.
    said: Mutex<BTreeSet<(String, String)>>,
    active: AtomicUsize,
    tasks: TaskTracker,
}

/// Starts a run that waited in a queue.
pub trait StartQueued: Send + Sync {
    /// Lists and opens the run that `waited`; done when the log has answered. Its mark holds for
    /// [`START_WITHIN`]; after that others may be faster, which is as good. `false`: it was withdrawn
    /// meanwhile, so that what waits behind it is next.
    fn start<'a>(&'a self, session: &'a SessionId, waited: ToStart) -> BoxFuture<'a, bool>;
}

/// One life of this instance: ids are used once.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) instance: InstanceId,
    pub(super) interrupt: CancellationToken,
}

impl Life {
    fn new() -> Self {
        Life { instance: InstanceId::from_random(crate::random::u128()), interrupt: CancellationToken::new() }
    }
}

/// A run that has begun.
pub struct Begun {
    /// Offset of its `started` entry; `None`: the log has not acknowledged it in time, and goes on
    /// trying.
    pub started: Option<Offset>,
    /// The direct caller's body.
    pub body: CallerBody,
}

impl Runs {
    /// The runs of an instance that begins now.
    pub fn new(log: Arc<dyn Log>, settings: RunsSettings, metrics: Metrics) -> Arc<Self> {
        Arc::new(Runs {
            log,
            life: Mutex::new(Life::new()),
            settings,
            metrics,
            pending: AtomicU64::new(0),
            retained: AtomicUsize::new(0),
            doubts: Arc::default(),
            remembered: Remembered::default(),
            driven: Registry::default(),
            starter: OnceLock::new(),
            said: Mutex::default(),
            active: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
        })
    }

    /// Begins to drive a run whose upstream answer is `upstream`, and waits at most `eager_after`
    /// for its opening.
    pub async fn begin(self: &Arc<Self>, spec: RunSpec, upstream: Body) -> Begun {
        let (caller, body) = caller(self.settings.caller_buffer);
        let seats = Seats::new(spec.grace);
        let body = body.seated(seats.take());
        // Its id is new: nobody drives it yet.
        let opening = self.drive(spec, Feed::Answering(upstream), Some(caller), seats);
        let opened = match opening {
            Some(opening) => timeout(self.settings.eager_after, opening).await.ok().and_then(Result::ok),
            None => None,
        };
        let started = opened.and_then(|opened| match opened {
            Opened::Open { started, .. } => Some(started),
            _ => None,
        });
        Begun { started, body }
    }

    /// Begins to drive a run whose events are `events`, for nobody in particular: there is no direct
    /// caller, so the events are read only as fast as the log stores them. Otherwise like [`Runs::open`].
    pub fn write(self: &Arc<Self>, spec: RunSpec, events: Body) -> Option<oneshot::Receiver<Opened>> {
        self.drive(spec, Feed::Answering(events), None, Seats::new(None))
    }

    /// Opens a run that nobody has called the upstream for, and calls it once the log has the run.
    /// `None`: this instance drives a run of this id. The receiver hears the log's definite answer; unless
    /// that is [`Opened::Open`] nothing was begun, and the run is nobody's.
    pub fn open(self: &Arc<Self>, spec: RunSpec, call: Call) -> Option<oneshot::Receiver<Opened>> {
        self.drive(spec, Feed::Unasked(call), None, Seats::new(None))
    }

    fn drive(
        self: &Arc<Self>,
        mut spec: RunSpec,
        feed: Feed,
        caller: Option<Caller>,
        seats: Seats,
    ) -> Option<oneshot::Receiver<Opened>> {
        let found = Found::new(std::mem::take(&mut spec.values));
        let (driven, orders) = orders(found.shared(), spec.steer.take(), seats);
        if !self.driven.enter(&spec.run, driven) {
            return None;
        }
        let (opened, opening) = oneshot::channel();
        let owner = Owner::new(self.clone(), spec, found, caller, opened);
        self.active.fetch_add(1, Ordering::AcqRel);
        let (runs, counted) = (self.clone(), self.metrics.active_run());
        let (session, run, instance) = owner.names();
        self.tasks.spawn(async move {
            let driven = AssertUnwindSafe(owner.drive(feed, orders)).catch_unwind().await;
            if driven.is_err() {
                // A defect of ours must not leave a run that never ends: it ends like one whose owner has died.
                tracing::error!(%session, %run, "the owner of a run broke off by a defect; the run is ended for it");
                take_over(runs.clone(), instance, session, vec![run.clone()]).await;
                runs.driven.leave(&run);
            }
            runs.active.fetch_sub(1, Ordering::AcqRel);
            drop(counted);
        });
        Some(opening)
    }

    /// The run of this id, where this instance drives it.
    pub fn driven(&self, run: &RunId) -> Option<Driven> {
        self.driven.of(run)
    }

    /// Does what this instance is told. It may be told twice, and of runs that have ended.
    pub(super) fn obey(&self, command: Command) {
        match command {
            Command::Cancel { run, by, .. } => {
                if let Some(driven) = self.driven.of(&run) {
                    driven.cancel(by);
                }
            }
            Command::Caller { run, caller, here, .. } => {
                if let Some(driven) = self.driven.of(&run) {
                    driven.caller(caller, here);
                }
            }
            Command::Steer(order) => {
                if let Some(driven) = self.driven.of(&order.run) {
                    self.tasks.spawn(steer(driven, order));
                }
            }
        }
    }

    /// Who starts what waited in a queue. Said once, before anything runs.
    pub fn queued_start_by(&self, starter: Weak<dyn StartQueued>) {
        let _ = self.starter.set(starter);
    }

    /// A route of the session may be free: starts what waited for it. The time after which to ask
    /// again, where others are about to start something: they may die over it.
    pub(super) async fn freed(&self, session: &SessionId) -> Option<Duration> {
        if self.is_leaving() {
            return None;
        }
        let instance = self.instance();
        loop {
            let starts = definite(|| self.log.start_queued(session, &instance, START_WITHIN)).await;
            let Some(starter) = self.starter.get().and_then(Weak::upgrade) else { return starts.others };
            let mut left_a_place = false;
            for waited in starts.yours {
                left_a_place |= !starter.start(session, waited).await;
            }
            if !left_a_place {
                return starts.others;
            }
        }
    }

    /// After a terminal: starts what waited for it. `false`: this instance is leaving, and others have
    /// to do it.
    pub(super) async fn hand_on(&self, session: &SessionId) -> bool {
        if self.is_leaving() {
            return false;
        }
        self.freed(session).await;
        true
    }

    /// Whether this instance begins nothing any more; connections end by its own doing.
    pub(super) fn is_leaving(&self) -> bool {
        self.tasks.is_closed()
    }

    /// Does something that is waited for when this instance leaves.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.tasks.spawn(task)
    }

    /// Tells the upstream that a run was cancelled, in its own words.
    pub(super) fn tell_cancelled(&self, call: SideCall, values: Values, session: &SessionId, run: &RunId) {
        let (session, run, metrics) = (session.clone(), run.clone(), self.metrics.clone());
        self.tasks.spawn(async move {
            let answer = call.make(values, None).await;
            let answer = answer.map(|answer| answer.status).map_err(|failed| failed.reason);
            CancelCalled { session: &session, run: &run, answer }.emit(&metrics);
        });
    }

    /// Whether it was not said yet that runs of this route are not of this dialect.
    pub(super) fn is_news(&self, route: &str, dialect: &str) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert((route.to_owned(), dialect.to_owned()))
    }

    /// What this instance doubts of the store: whoever else writes needs to know.
    pub fn doubts(&self) -> Arc<Doubts> {
        self.doubts.clone()
    }

    /// How many runs this instance drives now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// A place for a run that may begin: until it is dropped, [`Runs::idle`] waits.
    pub fn may_begin(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Waits until no run is active, and none may begin.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Tells every run to end now, as `interrupted`.
    pub fn interrupt(&self) {
        self.life().interrupt.cancel();
    }

    /// This instance's id.
    pub fn instance(&self) -> InstanceId {
        self.life().instance
    }

    /// Drops all runs, which now belong to others, and goes on under a new id.
    pub(super) fn start_over(&self) {
        let ended = std::mem::replace(&mut *self.lock(), Life::new());
        ended.interrupt.cancel();
    }

    pub(super) fn life(&self) -> Life {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::watch;

    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::log::{Append, Appended, RunFlags, RunInfo, Starts, TakenOver, Takeover};

    use crate::run::fixtures::{runs_on, spec};
    use crate::session::{RunState, Terminal};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Who asked may have died between the flag and the command.
    #[tokio::test]
    async fn a_silent_run_whose_end_was_asked_for_ends_though_no_command_came() {
        let log = Arc::new(Scripted::default());
        log.open_run.answers(|_| now(Opened::Open { started: Offset::new(1, 1), flags: RunFlags::default() }));
        log.run.answers(|run| {
            let (owner, started, last) = (InstanceId::from_random(1), Offset::new(1, 1), Offset::new(1, 1));
            let cancel = Some(r#"{"client":"gone"}"#.into());
            now(Some(RunInfo { run, owner, started, last, ended: None, parent: None, cancel }))
        });
        let (kept, mut appends) = watch::channel(None);
        log.append.answers(move |append: Append| {
            kept.send_replace(append.records.last().cloned());
            let (first, flags) = (Offset::new(1, 2), RunFlags::default());
            now(Appended::Stored { first, last: first, flags, next: None })
        });
        let runs = runs_on(log, PATIENCE);
        let silent: Call = Box::new(|| Box::pin(std::future::pending()));
        let opened = runs.open(spec(&RunId::from_random(7), PATIENCE), silent).unwrap().await.unwrap();
        assert!(matches!(opened, Opened::Open { .. }));
        let ended = timeout(PATIENCE, appends.wait_for(Option::is_some)).await.expect("it goes on").unwrap();
        let terminal = ended.as_ref().unwrap();
        assert_eq!(terminal.state(), Some(RunState::Ended(Terminal::Cancelled)));
        assert!(terminal.data.contains("gone"), "{}", terminal.data);
    }

    /// Begins nothing: the first of what waits was withdrawn meanwhile.
    #[derive(Default)]
    struct Starter(Mutex<Vec<RunId>>);

    impl StartQueued for Starter {
        fn start<'a>(&'a self, _: &'a SessionId, waited: ToStart) -> BoxFuture<'a, bool> {
            let mut started = self.0.lock().unwrap();
            started.push(waited.run);
            let there = started.len() > 1;
            Box::pin(async move { there })
        }
    }

    fn waits(run: u128) -> Starts {
        let (run, item) = (RunId::from_random(run), bytes::Bytes::new());
        let yours = vec![ToStart { run, key: None, route: "r".into(), client: None, item }];
        Starts { yours, others: None }
    }

    /// The symptom: what waited behind it waited for ever.
    #[tokio::test]
    async fn what_waits_behind_a_run_that_was_withdrawn_as_it_was_started_is_started() {
        let log = Arc::new(Scripted::default());
        let asked = AtomicUsize::new(0);
        log.start_queued.answers(move |_| now(waits(asked.fetch_add(1, Ordering::SeqCst) as u128)));
        let (runs, starter) = (runs_on(log, PATIENCE), Arc::new(Starter::default()));
        let weak: Weak<Starter> = Arc::downgrade(&starter);
        runs.queued_start_by(weak);
        runs.freed(&SessionId::from_random(1)).await;
        assert_eq!(*starter.0.lock().unwrap(), [RunId::from_random(0), RunId::from_random(1)]);
    }

    /// The symptom: a terminal whose answer was lost started nothing of what waited for it.
    #[tokio::test]
    async fn what_waited_for_a_run_is_started_though_the_answer_to_its_terminal_was_lost() {
        let log = Arc::new(Scripted::default());
        log.open_run.answers(|_| now(Opened::Open { started: Offset::new(1, 1), flags: RunFlags::default() }));
        let repeats = AtomicUsize::new(0);
        log.append.answers(move |_| match repeats.fetch_add(1, Ordering::SeqCst) {
            0 => Box::pin(async { Err(crate::log::Unavailable::new("lost")) }),
            _ => now(Appended::Duplicate { last: Offset::new(1, 2), flags: RunFlags::default() }),
        });
        let (asked, mut asks) = watch::channel(false);
        log.start_queued.answers(move |_| {
            asked.send_replace(true);
            now(Starts::default())
        });
        let runs = runs_on(log, PATIENCE);
        let refused: Call = Box::new(|| Box::pin(async { Err(crate::run::CallFailed { reason: "refused" }) }));
        runs.open(spec(&RunId::from_random(7), PATIENCE), refused).unwrap().await.unwrap();
        let asked = timeout(PATIENCE, asks.wait_for(|asked| *asked)).await;
        assert!(asked.is_ok(), "nobody asked what may start");
    }

    #[tokio::test]
    async fn a_run_whose_owner_breaks_off_by_a_defect_is_ended_like_one_of_a_dead_instance() {
        let log = Arc::new(Scripted::default());
        log.open_run.answers(|_| now(Opened::Open { started: Offset::new(1, 1), flags: RunFlags::default() }));
        let (taken, mut takeovers) = watch::channel(None);
        log.takeover.answers(move |takeover: Takeover| {
            taken.send_replace(Some(takeover.run));
            now(TakenOver::Ended { offset: Offset::new(1, 2), state: Terminal::Interrupted })
        });
        let (runs, run) = (runs_on(log, PATIENCE), RunId::from_random(7));
        let events = stream::iter(0..2).map(|n| match n {
            0 => Ok(Frame::data(bytes::Bytes::from_static(b"data: x"))),
            _ => unreachable!("a defect"),
        });
        let opened = runs.write(spec(&run, PATIENCE), StreamBody::new(events).boxed_unsync()).unwrap().await.unwrap();
        assert!(matches!(opened, Opened::Open { .. }));
        let ended = timeout(PATIENCE, takeovers.wait_for(|taken| taken.as_ref() == Some(&run))).await;
        assert!(ended.is_ok(), "nobody ended the run");
        drop(ended);
        assert_eq!(runs.pending.load(Ordering::Acquire), 0, "others have less memory for ever");
    }
}
