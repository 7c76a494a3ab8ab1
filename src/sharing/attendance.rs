//! Who is here through this instance. Each client is leased in the log; the leases are renewed for as
//! long as the connections live, and end by themselves where this instance dies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::log::{Appeared, Log, PRESENCE_LEASE, Present, Unavailable};
use crate::session::{ConnectionId, SessionId};

/// How often leases are renewed: two renewals may fail before a client seems to have left.
const RENEW: Duration = Duration::from_secs(5);

/// Sessions whose leases are renewed at a time.
const AT_ONCE: usize = 32;

/// How long a departure is tried to be said; after that the lease ends soon anyway.
const FAREWELL: Duration = Duration::from_secs(3);

/// Pause between attempts while the store does not answer.
const RETRY: Duration = Duration::from_millis(200);

/// The clients that are here through this instance. Bounded by its connections, and what each may
/// attach.
pub struct Attendance {
    log: Arc<dyn Log>,
    here: Mutex<HashMap<SessionId, BTreeMap<ConnectionId, Arc<Seat>>>>,
    tasks: TaskTracker,
}

/// One client in one session. What is said of it is said in turn; `None`: it is not here (yet, or any
/// more).
#[derive(Default)]
struct Seat(tokio::sync::Mutex<Option<Present>>);

impl Attendance {
    /// Nobody is here. Departures are said in `tasks`.
    pub fn new(log: Arc<dyn Log>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Attendance { log, here: Mutex::default(), tasks })
    }

    /// Renews leases; never returns.
    pub async fn keep(self: Arc<Self>) {
        let mut tick = interval(RENEW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.renew().await;
        }
    }

    /// Renews all leases once. What fails is tried again with the next renewal.
    async fn renew(&self) {
        let sessions: Vec<SessionId> = self.lock().keys().cloned().collect();
        stream::iter(sessions).for_each_concurrent(AT_ONCE, |session| self.renew_in(session)).await;
    }

    async fn renew_in(&self, session: SessionId) {
        let connections: Vec<ConnectionId> =
            self.lock().get(&session).map(|seats| seats.keys().cloned().collect()).unwrap_or_default();
        if connections.is_empty() {
            return;
        }
        let Ok(missing) = self.log.stay(&session, connections, PRESENCE_LEASE).await else { return };
        for connection in missing {
            let seat = self.lock().get(&session).and_then(|seats| seats.get(&connection)).cloned();
            let Some(seat) = seat else { continue };
            let client = seat.0.lock().await;
            if let Some(client) = &*client {
                // The store was away for longer than the lease, or has lost it.
                let _ = self.log.appear(&session, client.clone(), PRESENCE_LEASE).await;
            }
        }
    }

    /// The seat of a client, for it to take.
    fn seat(&self, session: &SessionId, connection: &ConnectionId) -> Arc<Seat> {
        let mut here = self.lock();
        here.entry(session.clone()).or_default().entry(connection.clone()).or_default().clone()
    }

    /// Gives up the seat, at once for this instance, a moment later for everybody.
    fn leave(self: &Arc<Self>, session: &SessionId, connection: &ConnectionId) {
        let seat = {
            let mut here = self.lock();
            let Some(seats) = here.get_mut(session) else { return };
            let seat = seats.remove(connection);
            if seats.is_empty() {
                here.remove(session);
            }
            seat
        };
        let Some(seat) = seat else { return };
        let (attendance, session, connection) = (self.clone(), session.clone(), connection.clone());
        self.tasks.spawn(async move {
            // Behind whatever is being said of it.
            let mut client = seat.0.lock().await;
            *client = None;
            let say = async {
                while attendance.log.depart(&session, &connection).await.is_err() {
                    sleep(RETRY).await;
                }
            };
            let _ = timeout(FAREWELL, say).await;
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, BTreeMap<ConnectionId, Arc<Seat>>>> {
        // Nothing here panics while it holds the lock.
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seats of one connection; it leaves them when this is dropped.
pub struct Seats {
    attendance: Arc<Attendance>,
    connection: ConnectionId,
    sessions: HashSet<SessionId>,
}

impl Seats {
    /// A connection that is nowhere yet.
    pub fn new(attendance: Arc<Attendance>, connection: ConnectionId) -> Self {
        Seats { attendance, connection, sessions: HashSet::new() }
    }

    /// Is here in `session`, or has another state. The seat is taken at once; the answer comes when
    /// the log has said so to everybody.
    pub fn take(
        &mut self,
        session: SessionId,
        client: Present,
    ) -> impl Future<Output = Result<Appeared, Unavailable>> + Send + 'static {
        self.sessions.insert(session.clone());
        let (attendance, seat) = (self.attendance.clone(), self.attendance.seat(&session, &self.connection));
        async move {
            let mut taken = seat.0.lock().await;
            let answer = attendance.log.appear(&session, client.clone(), PRESENCE_LEASE).await?;
            if answer == Appeared::Here {
                *taken = Some(client);
            }
            Ok(answer)
        }
    }

    /// Leaves `session`.
    pub fn leave(&mut self, session: &SessionId) {
        if self.sessions.remove(session) {
            self.attendance.leave(session, &self.connection);
        }
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        for session in self.sessions.drain() {
            self.attendance.leave(&session, &self.connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::session::ClientName;

    fn session() -> SessionId {
        SessionId::parse("s").unwrap()
    }

    fn client(state: &str) -> Present {
        let (connection, client) = (ConnectionId::parse("c").unwrap(), ClientName::parse("phone").unwrap());
        Present { connection, client, state: state.into() }
    }

    struct Told {
        appeared: Mutex<Vec<String>>,
        departed: AtomicUsize,
    }

    fn attendance() -> (Arc<Scripted>, Arc<Attendance>, Arc<Told>) {
        let log = Arc::new(Scripted::default());
        let told = Arc::new(Told { appeared: Mutex::default(), departed: AtomicUsize::new(0) });
        let here = told.clone();
        log.appear.answers(move |(_, client)| {
            here.appeared.lock().unwrap().push(client.state.to_string());
            now(Appeared::Here)
        });
        let gone = told.clone();
        log.depart.answers(move |_| {
            gone.departed.fetch_add(1, Ordering::SeqCst);
            now(())
        });
        let attendance = Attendance::new(log.clone(), TaskTracker::new());
        (log, attendance, told)
    }

    #[tokio::test]
    async fn a_connection_that_ends_leaves_wherever_it_was() {
        let (_log, attendance, told) = attendance();
        let mut seats = Seats::new(attendance.clone(), client("1").connection);
        seats.take(session(), client("1")).await.unwrap();
        seats.take(SessionId::parse("t").unwrap(), client("1")).await.unwrap();
        drop(seats);
        attendance.tasks.close();
        attendance.tasks.wait().await;
        assert_eq!(told.departed.load(Ordering::SeqCst), 2);
        assert!(attendance.lock().is_empty());
    }

    #[tokio::test]
    async fn whoever_the_store_has_lost_appears_again_and_nobody_else() {
        let (log, attendance, told) = attendance();
        let mut seats = Seats::new(attendance.clone(), client("1").connection);
        seats.take(session(), client("1")).await.unwrap();
        log.stay.answers(|_| now(Vec::new()));
        attendance.renew().await;
        assert_eq!(*told.appeared.lock().unwrap(), ["1"]);
        log.stay.answers(|(_, connections)| now(connections));
        attendance.renew().await;
        assert_eq!(*told.appeared.lock().unwrap(), ["1", "1"]);
        seats.leave(&session());
        attendance.renew().await;
        assert_eq!(told.appeared.lock().unwrap().len(), 2, "it has left");
    }

    #[tokio::test]
    async fn a_departure_comes_after_whatever_is_being_said() {
        let (log, attendance, told) = attendance();
        let (go, wait) = tokio::sync::watch::channel(false);
        let here = told.clone();
        log.appear.answers(move |(_, client)| {
            let (here, mut wait) = (here.clone(), wait.clone());
            Box::pin(async move {
                let _ = wait.wait_for(|go| *go).await;
                assert_eq!(here.departed.load(Ordering::SeqCst), 0, "it had left already");
                here.appeared.lock().unwrap().push(client.state.to_string());
                Ok(Appeared::Here)
            })
        });
        let mut seats = Seats::new(attendance.clone(), client("1").connection);
        let taking = tokio::spawn(seats.take(session(), client("1")));
        tokio::task::yield_now().await;
        drop(seats);
        tokio::task::yield_now().await;
        go.send(true).unwrap();
        taking.await.unwrap().unwrap();
        attendance.tasks.close();
        attendance.tasks.wait().await;
        assert_eq!(told.departed.load(Ordering::SeqCst), 1);
    }
}
