//! Who follows which session.
//!
//! Told by the writer, after the commit. What waits for a follower is bounded: pushes that do not
//! fit are dropped, and a check is owed instead.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::log::{Following, Push, PushSender, following};
use crate::session::SessionId;

/// Pushes that wait for one follower; more are dropped, and a check is owed.
const CAPACITY: usize = 64;

/// Pushes in the order of their commits.
pub(super) type Pushes = Vec<(SessionId, Push)>;

/// The followers of all sessions.
#[derive(Default)]
pub(super) struct Followers {
    by_session: Mutex<HashMap<SessionId, Vec<PushSender>>>,
}

impl Followers {
    /// Follows a session from now on.
    pub(super) fn follow(&self, session: &SessionId) -> Following {
        let (sender, following) = following(CAPACITY);
        let mut by_session = self.lock();
        let senders = by_session.entry(session.clone()).or_default();
        senders.retain(|sender| !sender.is_closed());
        senders.push(sender);
        following
    }

    /// Tells the followers of what was committed.
    pub(super) fn publish(&self, pushes: Pushes) {
        let mut by_session = self.lock();
        for (session, push) in pushes {
            if let Some(senders) = by_session.get_mut(&session) {
                senders.retain(|sender| sender.send(push.clone()));
                if senders.is_empty() {
                    by_session.remove(&session);
                }
            }
        }
    }

    /// Tells everybody to look: what happened is not known.
    pub(super) fn check_all(&self) {
        self.lock().values_mut().for_each(|senders| senders.retain(|sender| sender.send(Push::Check)));
    }

    /// Forgets those that have left sessions nobody writes to.
    pub(super) fn forget_who_left(&self) {
        self.lock().retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
    }

    /// Ends every following.
    pub(super) fn end(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<PushSender>>> {
        // A panic elsewhere leaves at worst a follower that owes itself a check.
        self.by_session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
