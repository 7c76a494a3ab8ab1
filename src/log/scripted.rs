//! A log for unit tests that answers what the test says. What nobody scripted stays unanswered, as
//! with a store that is away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::pending;
use tokio::sync::watch;

use super::*;
use crate::session::{ConnectionId, Entry, InstanceId, Offset, RunId, SessionId, Subject};

/// What is scripted is answered by a closure; it may be replaced at any time.
#[derive(Default)]
pub(crate) struct Scripted {
    pub(crate) open_run: Script<OpenRun, Opened>,
    pub(crate) append: Script<Append, Appended>,
    pub(crate) takeover: Script<Takeover, TakenOver>,
    pub(crate) read: Script<Offset, Read>,
    pub(crate) bounds: Script<(), Bounds>,
    pub(crate) follow: Script<(), Following>,
    pub(crate) renew: Script<(), Renewal>,
    pub(crate) sweep: Script<(), Vec<DeadInstance>>,
    pub(crate) appear: Script<(SessionId, Present), Appeared>,
    pub(crate) stay: Script<(SessionId, Vec<ConnectionId>), Vec<ConnectionId>>,
    pub(crate) depart: Script<(SessionId, ConnectionId), ()>,
    pub(crate) shared: Script<(), Shared>,
    pub(crate) run: Script<RunId, Option<RunInfo>>,
    pub(crate) start_queued: Script<SessionId, Starts>,
    pub(crate) commands: Script<InstanceId, Commands>,
    pub(crate) steady_for: Mutex<Duration>,
    /// Up where the test does not say.
    pub(crate) health: Mutex<Option<watch::Receiver<StoreHealth>>>,
}

type Closure<Q, A> = Arc<dyn Fn(Q) -> Answer<'static, A> + Send + Sync>;

/// The answers to one kind of question.
pub(crate) struct Script<Q, A>(Mutex<Option<Closure<Q, A>>>);

impl<Q, A> Default for Script<Q, A> {
    fn default() -> Self {
        Script(Mutex::new(None))
    }
}

impl<Q, A: Send + 'static> Script<Q, A> {
    /// Answers from now on with what `closure` says.
    pub(crate) fn answers(&self, closure: impl Fn(Q) -> Answer<'static, A> + Send + Sync + 'static) {
        *self.0.lock().unwrap() = Some(Arc::new(closure));
    }

    fn ask(&self, question: Q) -> Answer<'static, A> {
        let closure = self.0.lock().unwrap().clone();
        closure.map_or_else(|| pending().boxed(), |closure| closure(question))
    }
}

/// An answer at once.
pub(crate) fn now<A: Send + 'static>(answer: A) -> Answer<'static, A> {
    async { Ok(answer) }.boxed()
}

impl Log for Scripted {
    fn open_run(&self, open: OpenRun) -> Answer<'_, Opened> {
        self.open_run.ask(open)
    }

    fn append(&self, append: Append) -> Answer<'_, Appended> {
        self.append.ask(append)
    }

    fn takeover(&self, takeover: Takeover) -> Answer<'_, TakenOver> {
        self.takeover.ask(takeover)
    }

    fn cancel(&self, _: CancelRequest) -> Answer<'_, Cancelled> {
        pending().boxed()
    }

    fn queue<'a>(&'a self, _: &'a SessionId) -> Answer<'a, Vec<QueuedRun>> {
        pending().boxed()
    }

    fn withdraw<'a>(&'a self, _: &'a SessionId, _: &'a str) -> Answer<'a, Option<RunId>> {
        pending().boxed()
    }

    fn start_queued<'a>(&'a self, session: &'a SessionId, _: &'a InstanceId, _: Duration) -> Answer<'a, Starts> {
        self.start_queued.ask(session.clone())
    }

    fn read<'a>(&'a self, _: &'a SessionId, after: Offset, _: PageLimits) -> Answer<'a, Read> {
        self.read.ask(after)
    }

    fn locate<'a>(&'a self, _: &'a SessionId, _: Place) -> Answer<'a, Option<Offset>> {
        pending().boxed()
    }

    fn follow<'a>(&'a self, _: &'a SessionId) -> Answer<'a, Following> {
        self.follow.ask(())
    }

    fn bounds<'a>(&'a self, _: &'a SessionId) -> Answer<'a, Bounds> {
        self.bounds.ask(())
    }

    fn entry<'a>(&'a self, _: &'a SessionId, _: Offset) -> Answer<'a, Option<Arc<Entry>>> {
        pending().boxed()
    }

    fn run<'a>(&'a self, _: &'a SessionId, run: &'a RunId) -> Answer<'a, Option<RunInfo>> {
        self.run.ask(run.clone())
    }

    fn session_of<'a>(&'a self, _: &'a RunId) -> Answer<'a, Option<SessionId>> {
        pending().boxed()
    }

    fn sessions(&self, _: usize) -> Answer<'_, Vec<SessionRow>> {
        pending().boxed()
    }

    fn erase<'a>(&'a self, _: &'a SessionId) -> Answer<'a, bool> {
        pending().boxed()
    }

    fn appear<'a>(&'a self, session: &'a SessionId, client: Present, _: Duration) -> Answer<'a, Appeared> {
        self.appear.ask((session.clone(), client))
    }

    fn stay<'a>(
        &'a self,
        session: &'a SessionId,
        connections: Vec<ConnectionId>,
        _: Duration,
    ) -> Answer<'a, Vec<ConnectionId>> {
        self.stay.ask((session.clone(), connections))
    }

    fn depart<'a>(&'a self, session: &'a SessionId, connection: &'a ConnectionId) -> Answer<'a, ()> {
        self.depart.ask((session.clone(), connection.clone()))
    }

    fn mark_read<'a>(&'a self, _: &'a SessionId, _: ReadCursor) -> Answer<'a, Marked> {
        pending().boxed()
    }

    fn say<'a>(&'a self, _: &'a SessionId, _: Ephemeral) -> Answer<'a, ()> {
        pending().boxed()
    }

    fn shared<'a>(&'a self, _: &'a SessionId) -> Answer<'a, Shared> {
        self.shared.ask(())
    }

    fn bind<'a>(&'a self, _: &'a SessionId, _: &'a Subject) -> Answer<'a, bool> {
        now(true)
    }

    fn sessions_of<'a>(&'a self, _: &'a Subject, _: usize, _: Option<Used>) -> Answer<'a, Vec<OwnSession>> {
        pending().boxed()
    }

    fn claim<'a>(&'a self, _: &'a str, _: ByteString) -> Answer<'a, Claim> {
        pending().boxed()
    }

    fn amend<'a>(&'a self, _: &'a str, _: ByteString, _: Option<ByteString>) -> Answer<'a, bool> {
        pending().boxed()
    }

    fn enlist<'a>(&'a self, _: &'a InstanceId, _: &'a SessionId, _: &'a RunId) -> Answer<'a, bool> {
        now(true)
    }

    fn unlist<'a>(&'a self, _: &'a InstanceId, _: &'a SessionId, _: &'a RunId) -> Answer<'a, ()> {
        now(())
    }

    fn is_listed<'a>(&'a self, _: &'a InstanceId, _: &'a SessionId, _: &'a RunId) -> Answer<'a, bool> {
        pending().boxed()
    }

    fn command<'a>(&'a self, _: &'a InstanceId, _: Command) -> Answer<'a, bool> {
        pending().boxed()
    }

    fn commands<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, Commands> {
        self.commands.ask(instance.clone())
    }

    fn renew<'a>(&'a self, _: &'a InstanceId, _: Duration) -> Answer<'a, Renewal> {
        self.renew.ask(())
    }

    fn resign<'a>(&'a self, _: &'a InstanceId) -> Answer<'a, ()> {
        now(())
    }

    fn is_dead<'a>(&'a self, _: &'a InstanceId) -> Answer<'a, bool> {
        pending().boxed()
    }

    fn sweep<'a>(&'a self, _: &'a InstanceId) -> Answer<'a, Vec<DeadInstance>> {
        self.sweep.ask(())
    }

    fn steady_for(&self) -> Duration {
        *self.steady_for.lock().unwrap()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        let said = self.health.lock().unwrap().clone();
        said.unwrap_or_else(|| watch::Sender::new(StoreHealth::Up).subscribe())
    }

    fn close(&self) -> futures_util::future::BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
