//! The runs that this instance drives.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::log::Log;
use crate::run::CallerBody;
use crate::run::caller::caller;
use crate::run::owner::{Owner, RunSpec};
use crate::server::Body;
use crate::session::{InstanceId, Offset};
use crate::telemetry::Metrics;

/// Bounds of runs, the same for all.
#[derive(Clone, Copy, Debug)]
pub struct RunsSettings {
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
    active: AtomicUsize,
    tasks: TaskTracker,
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
            active: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
        })
    }

    /// Begins to drive a run whose upstream answer is `upstream`, and waits at most `eager_after`
    /// for its opening.
    pub async fn begin(self: &Arc<Self>, spec: RunSpec, upstream: Body) -> Begun {
        let (caller, body) = caller(self.settings.caller_buffer);
        let (opened, opening) = tokio::sync::oneshot::channel();
        let owner = Owner::new(self.clone(), spec, caller, opened);
        self.active.fetch_add(1, Ordering::AcqRel);
        let (runs, counted) = (self.clone(), self.metrics.active_run());
        self.tasks.spawn(async move {
            owner.drive(upstream).await;
            runs.active.fetch_sub(1, Ordering::AcqRel);
            drop(counted);
        });
        let started = tokio::time::timeout(self.settings.eager_after, opening).await;
        Begun { started: started.ok().and_then(Result::ok).flatten(), body }
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
