//! Who is here, in memory: whoever was connected to this process is gone with it. Like the leases of
//! instances, the rules are those of the contract all the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::followers::Followers;
use crate::log::{Appeared, MOST_PRESENT, Note, Present, Push};
use crate::session::{ConnectionId, SessionId};

/// Who is here, in every session.
#[derive(Default)]
pub(super) struct Presence {
    sessions: Mutex<HashMap<SessionId, Clients>>,
}

type Clients = BTreeMap<ConnectionId, Leased>;

struct Leased {
    client: Present,
    until: Instant,
}

impl Presence {
    pub(super) fn appear(
        &self,
        followers: &Followers,
        session: &SessionId,
        client: Present,
        lease: Duration,
        now: Instant,
    ) -> Appeared {
        let mut sessions = self.lock();
        let clients = sessions.entry(session.clone()).or_default();
        clients.retain(|_, leased| leased.until > now);
        let known = clients.get(&client.connection);
        if known.is_none() && clients.len() >= MOST_PRESENT {
            return Appeared::Full;
        }
        let news = known.is_none_or(|leased| leased.client != client);
        clients.insert(client.connection.clone(), Leased { client: client.clone(), until: now + lease });
        if news {
            // Under the lock: notes stand in the order of what they tell.
            followers.publish(vec![(session.clone(), Push::Note(Note::Here(client)))]);
        }
        Appeared::Here
    }

    pub(super) fn stay(
        &self,
        session: &SessionId,
        connections: Vec<ConnectionId>,
        lease: Duration,
        now: Instant,
    ) -> Vec<ConnectionId> {
        let mut sessions = self.lock();
        let Some(clients) = sessions.get_mut(session) else { return connections };
        let renewed = |connection: &ConnectionId| match clients.get_mut(connection) {
            Some(leased) if leased.until > now => {
                leased.until = now + lease;
                true
            }
            _ => false,
        };
        let (_, missing) = connections.into_iter().partition::<Vec<_>, _>(renewed);
        missing
    }

    pub(super) fn depart(&self, followers: &Followers, session: &SessionId, connection: &ConnectionId) {
        let mut sessions = self.lock();
        let Some(clients) = sessions.get_mut(session) else { return };
        let was_here = clients.remove(connection).is_some();
        if clients.is_empty() {
            sessions.remove(session);
        }
        if was_here {
            followers.publish(vec![(session.clone(), Push::Note(Note::Left(connection.clone())))]);
        }
    }

    /// Who is here, and when the first of their leases ends.
    pub(super) fn present(&self, session: &SessionId, now: Instant) -> (Vec<Present>, Option<Duration>) {
        let sessions = self.lock();
        let here = sessions.get(session).into_iter().flat_map(BTreeMap::values).filter(|leased| leased.until > now);
        let (present, leases): (Vec<_>, Vec<_>) =
            here.map(|leased| (leased.client.clone(), leased.until - now)).unzip();
        (present, leases.into_iter().min())
    }

    /// The session is erased, and with it who was here.
    pub(super) fn forget(&self, session: &SessionId) {
        self.lock().remove(session);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Clients>> {
        // No operation panics halfway.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
