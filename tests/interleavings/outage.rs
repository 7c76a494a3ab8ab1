//! A log whose store can be away, and that watches how terminals come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sidestream::log::*;
use sidestream::session::*;
use tokio::sync::watch;

/// How a store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// Nothing is done.
    Deaf,
    /// What is asked is done, and nobody hears of it.
    Dumb,
    /// Now this, now that.
    Either,
}

/// Forwards what is asked, unless the store is away.
pub struct Watched {
    pub inner: Arc<dyn Log>,
    away: Mutex<Option<Away>>,
    asked: AtomicU64,
    /// Of each run, whether its upstream is closed.
    closed: Mutex<HashMap<RunId, Arc<AtomicBool>>>,
    /// A terminal was written while the upstream was still open.
    pub too_early: Mutex<Vec<RunId>>,
}

impl Watched {
    pub fn new(inner: Arc<dyn Log>) -> Arc<Self> {
        let (away, closed, too_early) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Watched { inner, away, asked: AtomicU64::new(0), closed, too_early })
    }

    /// The store is away from now on, or is back.
    pub fn set(&self, away: Option<Away>) {
        *self.away.lock().unwrap() = away;
    }

    /// Watches the upstream of a run, which sets the flag when it is closed.
    pub fn watch(&self, run: &RunId) -> Arc<AtomicBool> {
        let flag = Arc::new(AtomicBool::new(false));
        self.closed.lock().unwrap().insert(run.clone(), flag.clone());
        flag
    }

    fn ask<'a, T: Send + 'a>(&'a self, forward: impl FnOnce() -> Answer<'a, T> + Send + 'a) -> Answer<'a, T> {
        let away = *self.away.lock().unwrap();
        let deaf = match away {
            None => return forward(),
            Some(Away::Deaf) => true,
            Some(Away::Dumb) => false,
            Some(Away::Either) => self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2),
        };
        async move {
            if !deaf {
                drop(forward().await);
            }
            Err(Unavailable::new("the store is away"))
        }
        .boxed()
    }

    fn look_at(&self, append: &Append) {
        let Writer::Run { run, .. } = &append.writer else { return };
        let ends = append.records.last().and_then(Record::state).and_then(RunState::terminal).is_some();
        let closed = self.closed.lock().unwrap();
        if ends && closed.get(run).is_some_and(|closed| !closed.load(Ordering::SeqCst)) {
            self.too_early.lock().unwrap().push(run.clone());
        }
    }
}

impl Log for Watched {
    fn open_run(&self, open: OpenRun) -> Answer<'_, Opened> {
        self.ask(|| self.inner.open_run(open))
    }

    fn append(&self, append: Append) -> Answer<'_, Appended> {
        self.look_at(&append);
        self.ask(|| self.inner.append(append))
    }

    fn takeover(&self, takeover: Takeover) -> Answer<'_, TakenOver> {
        self.ask(|| self.inner.takeover(takeover))
    }

    fn cancel(&self, request: CancelRequest) -> Answer<'_, Cancelled> {
        self.ask(|| self.inner.cancel(request))
    }

    fn queue<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Vec<QueuedRun>> {
        self.ask(|| self.inner.queue(session))
    }

    fn withdraw<'a>(&'a self, session: &'a SessionId, key: &'a str) -> Answer<'a, Option<RunId>> {
        self.ask(|| self.inner.withdraw(session, key))
    }

    fn start_queued<'a>(&'a self, session: &'a SessionId, by: &'a InstanceId, hold: Duration) -> Answer<'a, Starts> {
        self.ask(move || self.inner.start_queued(session, by, hold))
    }

    fn read<'a>(&'a self, session: &'a SessionId, after: Offset, limits: PageLimits) -> Answer<'a, Read> {
        self.ask(move || self.inner.read(session, after, limits))
    }

    fn locate<'a>(&'a self, session: &'a SessionId, place: Place) -> Answer<'a, Option<Offset>> {
        self.ask(move || self.inner.locate(session, place))
    }

    fn follow<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Following> {
        self.ask(|| self.inner.follow(session))
    }

    fn bounds<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Bounds> {
        self.ask(|| self.inner.bounds(session))
    }

    fn entry<'a>(&'a self, session: &'a SessionId, offset: Offset) -> Answer<'a, Option<Arc<Entry>>> {
        self.ask(move || self.inner.entry(session, offset))
    }

    fn run<'a>(&'a self, session: &'a SessionId, run: &'a RunId) -> Answer<'a, Option<RunInfo>> {
        self.ask(move || self.inner.run(session, run))
    }

    fn session_of<'a>(&'a self, run: &'a RunId) -> Answer<'a, Option<SessionId>> {
        self.ask(|| self.inner.session_of(run))
    }

    fn sessions(&self, limit: usize) -> Answer<'_, Vec<SessionRow>> {
        self.ask(move || self.inner.sessions(limit))
    }

    fn erase<'a>(&'a self, session: &'a SessionId) -> Answer<'a, bool> {
        self.ask(|| self.inner.erase(session))
    }

    fn appear<'a>(&'a self, session: &'a SessionId, client: Present, lease: Duration) -> Answer<'a, Appeared> {
        self.ask(move || self.inner.appear(session, client, lease))
    }

    fn stay<'a>(
        &'a self,
        session: &'a SessionId,
        connections: Vec<ConnectionId>,
        lease: Duration,
    ) -> Answer<'a, Vec<ConnectionId>> {
        self.ask(move || self.inner.stay(session, connections, lease))
    }

    fn depart<'a>(&'a self, session: &'a SessionId, connection: &'a ConnectionId) -> Answer<'a, ()> {
        self.ask(move || self.inner.depart(session, connection))
    }

    fn mark_read<'a>(&'a self, session: &'a SessionId, cursor: ReadCursor) -> Answer<'a, Marked> {
        self.ask(move || self.inner.mark_read(session, cursor))
    }

    fn say<'a>(&'a self, session: &'a SessionId, said: Ephemeral) -> Answer<'a, ()> {
        self.ask(move || self.inner.say(session, said))
    }

    fn shared<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Shared> {
        self.ask(|| self.inner.shared(session))
    }

    fn bind<'a>(&'a self, session: &'a SessionId, subject: &'a Subject) -> Answer<'a, bool> {
        self.ask(move || self.inner.bind(session, subject))
    }

    fn sessions_of<'a>(
        &'a self,
        subject: &'a Subject,
        limit: usize,
        before: Option<Used>,
    ) -> Answer<'a, Vec<OwnSession>> {
        self.ask(move || self.inner.sessions_of(subject, limit, before))
    }

    fn amend<'a>(&'a self, key: &'a str, from: ByteString, to: Option<ByteString>) -> Answer<'a, bool> {
        self.ask(move || self.inner.amend(key, from, to))
    }

    fn is_dead<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, bool> {
        self.ask(move || self.inner.is_dead(instance))
    }

    fn claim<'a>(&'a self, key: &'a str, value: ByteString) -> Answer<'a, Claim> {
        self.ask(|| self.inner.claim(key, value))
    }

    fn enlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool> {
        self.ask(move || self.inner.enlist(instance, session, run))
    }

    fn unlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, ()> {
        self.ask(move || self.inner.unlist(instance, session, run))
    }

    fn is_listed<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool> {
        self.ask(move || self.inner.is_listed(instance, session, run))
    }

    fn command<'a>(&'a self, instance: &'a InstanceId, command: Command) -> Answer<'a, bool> {
        self.ask(move || self.inner.command(instance, command))
    }

    fn commands<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, Commands> {
        self.inner.commands(instance)
    }

    fn renew<'a>(&'a self, instance: &'a InstanceId, lease: Duration) -> Answer<'a, Renewal> {
        // Who is dead is another test's matter.
        self.inner.renew(instance, lease)
    }

    fn resign<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, ()> {
        self.inner.resign(instance)
    }

    fn sweep<'a>(&'a self, by: &'a InstanceId) -> Answer<'a, Vec<DeadInstance>> {
        self.inner.sweep(by)
    }

    fn steady_for(&self) -> Duration {
        self.inner.steady_for()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.inner.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
