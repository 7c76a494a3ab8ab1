//! Subscribing: which sessions are followed, and where a new cursor stands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::hub::Cursor;
use crate::hub::follower::Followed;
use crate::hub::pages::Pages;
use crate::log::{Bounds, Log, Place, Unavailable};
use crate::session::{ActiveRun, After, Offset, SessionId};
use crate::telemetry::Metrics;

/// How far a cursor may be ahead of our clock before it cannot be ours: two stores' clocks may
/// differ, an hour is a different log.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Bounds of the hub.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Bytes of the newest entries kept per followed session.
    pub ring_bytes: usize,
}

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    /// There is no such session.
    #[error("there is no such session")]
    NotFound,
    /// The offset lies in the future: it cannot come from this log.
    #[error("the offset lies in the future; use one that the server sent, or \"start\" or \"end\"")]
    Future,
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A new subscriber.
pub struct Subscription {
    /// Its cursor.
    pub cursor: Cursor,
    /// Where it stands (exclusive).
    pub offset: Offset,
    /// The newest entry.
    pub tail: Offset,
    /// The session's active runs.
    pub active: Vec<ActiveRun>,
}

/// The followed sessions of this instance.
pub struct Hub {
    pub(super) log: Arc<dyn Log>,
    pub(super) followed: Mutex<HashMap<SessionId, Arc<Followed>>>,
    pub(super) pages: Pages,
    pub(super) limits: HubLimits,
    pub(super) metrics: Metrics,
    followings: AtomicU64,
    attended: mpsc::Sender<SessionId>,
    tasks: TaskTracker,
}

/// Sessions that wait for somebody to look after their active runs; more are forgotten, and named
/// again when the next subscriber comes.
const ATTENDED: usize = 4096;

impl Hub {
    /// A hub over `log`; its tasks run in `tasks`. The receiver gets the sessions with active runs that
    /// somebody subscribes to, or subscribed to on a connection of the store that was lost: whoever
    /// waits there must not wait for a run that nobody drives. Each at most every few seconds.
    pub fn new(
        log: Arc<dyn Log>,
        limits: HubLimits,
        metrics: Metrics,
        tasks: TaskTracker,
    ) -> (Arc<Self>, mpsc::Receiver<SessionId>) {
        let (attended, sessions) = mpsc::channel(ATTENDED);
        let hub = Arc::new(Hub {
            log,
            followed: Mutex::default(),
            pages: Pages::new(),
            limits,
            metrics,
            followings: AtomicU64::new(0),
            attended,
            tasks,
        });
        (hub, sessions)
    }

    /// Follows `session` from `after`. With `create`, a session that does not exist yet is
    /// followed from its first entry.
    pub async fn subscribe(
        self: &Arc<Self>,
        session: &SessionId,
        after: After,
        create: bool,
    ) -> Result<Subscription, NoSession> {
        if let After::Offset(offset) = after
            && Duration::from_millis(offset.ms) > now() + CLOCK_TOLERANCE
        {
            return Err(NoSession::Future);
        }
        let cursor = Cursor::new(self.clone(), self.join(session));
        let view = cursor.followed().ready().await?;
        cursor.followed().attend(self);
        if !view.exists && !create {
            // Somebody waits for this session, and may not have heard yet that it has begun.
            match self.log.bounds(session).await? {
                Bounds::Live(_) | Bounds::Expired { .. } => cursor.followed().check(),
                Bounds::Erased | Bounds::NotFound => return Err(NoSession::NotFound),
            }
        }
        let located = match after {
            After::Start => Some(Offset::ZERO),
            After::End => Some(view.tail),
            After::Offset(offset) => Some(offset),
            After::Last(n) => self.log.locate(session, Place::Last(n)).await?,
            After::Since(ms) => self.log.locate(session, Place::Since(ms)).await?,
        };
        let offset = located.unwrap_or(view.tail);
        Ok(Subscription { cursor: cursor.at(offset, view.tail), offset, tail: view.tail, active: view.active })
    }

    /// Names a session whose active runs are to be looked after.
    pub(super) fn attend(&self, session: &SessionId) {
        // Full: forgotten until the next subscriber.
        let _ = self.attended.try_send(session.clone());
    }

    /// The followed session, counted as having one more subscriber.
    fn join(self: &Arc<Self>, session: &SessionId) -> Arc<Followed> {
        let mut map = self.lock();
        if let Some(followed) = map.get(session) {
            followed.joined();
            return followed.clone();
        }
        let number = self.followings.fetch_add(1, Ordering::Relaxed);
        let followed = Arc::new(Followed::new(session.clone(), number, self.limits.ring_bytes));
        followed.joined();
        map.insert(session.clone(), followed.clone());
        self.tasks.spawn(followed.clone().follow(self.clone()));
        followed
    }

    /// Ends the following of a session that nobody subscribes to. `false`: somebody does.
    pub(super) fn leave(&self, followed: &Arc<Followed>) -> bool {
        let mut map = self.lock();
        let idle = followed.idle();
        if idle && map.get(&followed.session).is_some_and(|held| Arc::ptr_eq(held, followed)) {
            map.remove(&followed.session);
        }
        idle
    }

    /// Takes a session that was erased out of the map: who comes now starts anew.
    pub(super) fn retire(&self, followed: &Arc<Followed>) {
        let mut map = self.lock();
        if map.get(&followed.session).is_some_and(|held| Arc::ptr_eq(held, followed)) {
            map.remove(&followed.session);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<Followed>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
