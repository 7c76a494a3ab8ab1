//! Whether the store may have gone back in time: who has appended nothing since would not hear of it.
//!
//! A doubt is raised when the store is back after it was away (also as another server), when an owner
//! hears that entries were lost, and when a terminal of this instance is not where it was. Then
//! every writer that is silent looks whether its entries are there: owners, those who remember runs
//! that have ended, and who publishes for clients. Must never: raise a doubt for every writer that hears of
//! the same loss; there is at most one a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Bounds, Gap, GapReason, Log, PageLimits, Read, StoreHealth};
use crate::session::{Offset, SessionId};

/// How long a writer keeps what it has appended. Time in which the store is away does not count.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// After an outage nothing is let go of until everybody has had the time to look.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(15);

/// How often doubts are raised at most, and how often what is too old is let go of.
const EVERY: Duration = Duration::from_secs(1);

/// What is doubted, and what writers may let go of.
#[derive(Debug)]
pub struct Doubts {
    /// Counts them.
    raised: watch::Sender<u64>,
    /// One is to be raised.
    due: AtomicBool,
    /// What was appended before may be let go of.
    horizon: Mutex<Instant>,
}

/// Where an entry stands by which somebody knows the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is there.
    There,
    /// It was removed as everything is in the end, or erased.
    Removed,
    /// The store knows nothing of it, or not of its session.
    Lost,
    /// The store did not say.
    Unknown,
}

impl Default for Doubts {
    fn default() -> Self {
        let raised = watch::Sender::new(0);
        Doubts { raised, due: AtomicBool::new(false), horizon: Mutex::new(Instant::now()) }
    }
}

impl Doubts {
    /// The store has lost something: everybody is to look, within a second.
    pub(crate) fn raise(&self) {
        self.due.store(true, Ordering::Release);
    }

    /// How many there were, and when there is one more.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.raised.subscribe()
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        *self.raised.borrow()
    }

    /// What was appended before this may be let go of.
    pub(crate) fn horizon(&self) -> Instant {
        *self.lock()
    }

    fn now(&self) {
        self.due.store(false, Ordering::Release);
        self.raised.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.horizon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raises doubts when there is reason to, and moves the horizon while the store is there.
pub(crate) async fn doubt(log: &dyn Log, doubts: &Doubts) {
    let mut health = log.health();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut still_until = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if doubts.due.load(Ordering::Acquire) {
                    tracing::warn!(
                        "the store has lost entries that it had acknowledged; who wrote them looks, and appends again what is gone"
                    );
                    doubts.now();
                }
                if *health.borrow() != StoreHealth::Up {
                    still_until = Instant::now() + AFTER_AN_OUTAGE;
                } else if Instant::now() >= still_until
                    && let Some(horizon) = Instant::now().checked_sub(KEPT_FOR)
                {
                    let mut current = doubts.lock();
                    *current = horizon.max(*current);
                }
            }
            Ok(()) = health.changed() => {
                if *health.borrow_and_update() == StoreHealth::Up {
                    still_until = Instant::now() + AFTER_AN_OUTAGE;
                    doubts.now();
                }
            }
        }
    }
}

/// Where the entry at `seen` stands: a reader's question, which changes nothing.
pub(crate) async fn standing(log: &dyn Log, session: &SessionId, seen: Offset) -> Standing {
    match log.read(session, seen, PageLimits { entries: 1, bytes: 1 }).await {
        Ok(Read::Page(_)) => Standing::There,
        Ok(Read::Gap(Gap { reason: GapReason::Trimmed | GapReason::Expired, .. })) => Standing::Removed,
        Ok(Read::Gap(Gap { reason: GapReason::RolledBack, .. })) => Standing::Lost,
        Ok(Read::NotFound) => match log.bounds(session).await {
            Ok(Bounds::Erased) => Standing::Removed,
            Ok(Bounds::NotFound | Bounds::Expired { .. } | Bounds::Live(_)) => Standing::Lost,
            Err(_) => Standing::Unknown,
        },
        Err(_) => Standing::Unknown,
    }
}
