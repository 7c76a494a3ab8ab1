//! The log as others see it: hands writes to the writer, reads beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::batch::Batch;
use super::database::{Place, Slot};
use super::error::{Fault, OpenError};
use super::followers::Followers;
use super::leases::Leases;
use super::options::EmbeddedOptions;
use super::presence::Presence;
use super::read::Snapshot;
use super::request::{CLOSED, Job, Request};
use super::start;
use super::writer::{QUEUE, now_ms};
use crate::log::{
    Answer, Appeared, Append, Appended, Bounds, CancelOutcome, CancelRequest, Cancelled, Claim, Command, Commands,
    DeadInstance, Ephemeral, Following, Log, Marked, Note, OpenRun, Opened, OwnSession, PageLimits, Present, Push,
    QueuedRun, Read, ReadCursor, Renewal, Retention, RunInfo, SessionRow, Shared, Starts, StoreHealth, TakenOver,
    Takeover, Unavailable, Used,
};
use crate::session::{ConnectionId, Entry, InstanceId, Offset, RunId, SessionId, Subject};

/// Reads that may be at work at once, which bounds their threads and the pages in memory; more wait.
const READERS: usize = 8;

/// A log on local disk, or in memory, of this process alone.
pub struct EmbeddedLog {
    requests: mpsc::Sender<Request>,
    slot: Slot,
    readers: Semaphore,
    followers: Arc<Followers>,
    leases: Leases,
    presence: Presence,
    health: watch::Receiver<StoreHealth>,
    retention: Retention,
}

impl EmbeddedLog {
    /// Opens the log and ends the runs that were active when it was closed: whoever drove them is
    /// gone. Needs a Tokio runtime.
    ///
    /// # Errors
    /// The place is in use, cannot be written, or holds what this version cannot read.
    pub async fn open(options: EmbeddedOptions) -> Result<Arc<EmbeddedLog>, OpenError> {
        let opened = tokio::task::spawn_blocking(move || {
            let place = Place::claim(&options.location)?;
            start::open(place, options)
        });
        let started = opened.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(Self::serve(started))
    }

    pub(super) fn serve(start::Started { writer, health, sweep_every, stranded }: start::Started) -> Arc<Self> {
        let (requests, waiting) = mpsc::channel(QUEUE);
        let log = EmbeddedLog {
            requests: requests.clone(),
            slot: writer.slot.clone(),
            readers: Semaphore::new(READERS),
            followers: writer.followers.clone(),
            leases: Leases::after(stranded),
            presence: Presence::default(),
            health,
            retention: writer.retention,
        };
        tokio::spawn(sweep_regularly(requests.downgrade(), sweep_every));
        let thread = std::thread::Builder::new().name("log-writer".into());
        thread.spawn(move || writer.run(waiting)).expect("the system has a thread for the log");
        Arc::new(log)
    }

    /// The database, for tests that look into its tables.
    #[cfg(test)]
    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Has the writer apply `operation`; the answer comes once it is committed.
    async fn write<T: Send + 'static>(
        &self,
        operation: impl FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let gone = || Unavailable::new(CLOSED);
        let (reply, answer) = oneshot::channel();
        let job = Job::new(operation, reply);
        self.requests.send(Request::Apply(Box::new(job))).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn do_cancel(&self, request: CancelRequest) -> Result<Cancelled, Unavailable> {
        let asked = request.clone();
        let cancelled = self.write(move |batch| batch.cancel(&asked)).await?;
        if let Cancelled::Runs(runs) = &cancelled {
            let CancelRequest { session, by, .. } = request;
            for (run, outcome) in runs {
                if let CancelOutcome::Requested { owner } = outcome {
                    let command = Command::Cancel { session: session.clone(), run: run.clone(), by: by.clone() };
                    self.leases.command(owner, command)?;
                }
            }
        }
        Ok(cancelled)
    }

    async fn do_erase(&self, session: SessionId) -> Result<bool, Unavailable> {
        let erased = session.clone();
        let existed = self.write(move |batch| batch.erase(&erased)).await?;
        self.presence.forget(&session);
        Ok(existed)
    }

    async fn do_shared(&self, session: SessionId) -> Result<Shared, Unavailable> {
        let (present, lease_ends_in) = self.presence.present(&session, Instant::now());
        let cursors = self.snapshot(move |snapshot| snapshot.cursors(&session)).await?;
        Ok(Shared { present, lease_ends_in, cursors })
    }

    /// Reads a snapshot, off the async threads.
    async fn snapshot<T: Send + 'static>(
        &self,
        work: impl FnOnce(Snapshot<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let _permit = self.readers.acquire().await.map_err(|_| Unavailable::new(CLOSED))?;
        let (slot, retention) = (self.slot.clone(), self.retention);
        let read = move || slot.read(|read| work(Snapshot { read, retention, now_ms: now_ms() }));
        let done = tokio::task::spawn_blocking(read).await.map_err(|_| Unavailable::new("a read broke off"))?;
        if let Err(Fault::Database(_)) = &done {
            // A full queue will find out by itself.
            let _ = self.requests.try_send(Request::Probe);
        }
        Ok(done?)
    }
}

impl Log for EmbeddedLog {
    fn open_run(&self, open: OpenRun) -> Answer<'_, Opened> {
        self.write(move |batch| {
            let opened = batch.open_run(&open)?;
            if let Some(subject) = &open.subject {
                batch.bind(&open.session, subject)?;
            }
            Ok(opened)
        })
        .boxed()
    }

    fn append(&self, append: Append) -> Answer<'_, Appended> {
        self.write(move |batch| batch.append(&append)).boxed()
    }

    fn takeover(&self, takeover: Takeover) -> Answer<'_, TakenOver> {
        self.write(move |batch| batch.takeover(&takeover)).boxed()
    }

    fn cancel(&self, request: CancelRequest) -> Answer<'_, Cancelled> {
        self.do_cancel(request).boxed()
    }

    fn queue<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Vec<QueuedRun>> {
        let session = session.clone();
        self.snapshot(move |snapshot| snapshot.queue(&session)).boxed()
    }

    fn withdraw<'a>(&'a self, session: &'a SessionId, key: &'a str) -> Answer<'a, Option<RunId>> {
        let (session, key) = (session.clone(), key.to_owned());
        self.write(move |batch| batch.withdraw(&session, &key, &"{}".into())).boxed()
    }

    fn start_queued<'a>(&'a self, session: &'a SessionId, by: &'a InstanceId, hold: Duration) -> Answer<'a, Starts> {
        let (session, by) = (session.clone(), by.clone());
        self.write(move |batch| batch.start_queued(&session, &by, hold)).boxed()
    }

    fn read<'a>(&'a self, session: &'a SessionId, after: Offset, limits: PageLimits) -> Answer<'a, Read> {
        let session = session.clone();
        self.snapshot(move |snapshot| snapshot.page(&session, after, limits)).boxed()
    }

    fn locate<'a>(&'a self, session: &'a SessionId, place: crate::log::Place) -> Answer<'a, Option<Offset>> {
        let session = session.clone();
        self.snapshot(move |snapshot| snapshot.locate(&session, place)).boxed()
    }

    fn follow<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Following> {
        let following = self.followers.follow(session);
        std::future::ready(Ok(following)).boxed()
    }

    fn bounds<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Bounds> {
        let session = session.clone();
        self.snapshot(move |snapshot| snapshot.bounds(&session)).boxed()
    }

    fn entry<'a>(&'a self, session: &'a SessionId, offset: Offset) -> Answer<'a, Option<Arc<Entry>>> {
        let session = session.clone();
        self.snapshot(move |snapshot| snapshot.entry(&session, offset)).boxed()
    }

    fn run<'a>(&'a self, session: &'a SessionId, run: &'a RunId) -> Answer<'a, Option<RunInfo>> {
        let (session, run) = (session.clone(), run.clone());
        self.snapshot(move |snapshot| snapshot.run(&session, &run)).boxed()
    }

    fn session_of<'a>(&'a self, run: &'a RunId) -> Answer<'a, Option<SessionId>> {
        let run = run.clone();
        self.snapshot(move |snapshot| snapshot.session_of(&run)).boxed()
    }

    fn sessions(&self, limit: usize) -> Answer<'_, Vec<SessionRow>> {
        self.snapshot(move |snapshot| snapshot.sessions(limit)).boxed()
    }

    fn erase<'a>(&'a self, session: &'a SessionId) -> Answer<'a, bool> {
        self.do_erase(session.clone()).boxed()
    }

    fn appear<'a>(&'a self, session: &'a SessionId, client: Present, lease: Duration) -> Answer<'a, Appeared> {
        at_once(self.presence.appear(&self.followers, session, client, lease, Instant::now()))
    }

    fn stay<'a>(
        &'a self,
        session: &'a SessionId,
        connections: Vec<ConnectionId>,
        lease: Duration,
    ) -> Answer<'a, Vec<ConnectionId>> {
        at_once(self.presence.stay(session, connections, lease, Instant::now()))
    }

    fn depart<'a>(&'a self, session: &'a SessionId, connection: &'a ConnectionId) -> Answer<'a, ()> {
        self.presence.depart(&self.followers, session, connection);
        at_once(())
    }

    fn mark_read<'a>(&'a self, session: &'a SessionId, cursor: ReadCursor) -> Answer<'a, Marked> {
        let session = session.clone();
        self.write(move |batch| batch.mark_read(&session, &cursor)).boxed()
    }

    fn say<'a>(&'a self, session: &'a SessionId, said: Ephemeral) -> Answer<'a, ()> {
        self.followers.publish(vec![(session.clone(), Push::Note(Note::Said(said)))]);
        at_once(())
    }

    fn shared<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Shared> {
        self.do_shared(session.clone()).boxed()
    }

    fn bind<'a>(&'a self, session: &'a SessionId, subject: &'a Subject) -> Answer<'a, bool> {
        let (session, subject) = (session.clone(), subject.clone());
        self.write(move |batch| batch.bind(&session, &subject)).boxed()
    }

    fn sessions_of<'a>(
        &'a self,
        subject: &'a Subject,
        limit: usize,
        before: Option<Used>,
    ) -> Answer<'a, Vec<OwnSession>> {
        let subject = subject.clone();
        self.snapshot(move |snapshot| snapshot.sessions_of(&subject, limit, before.as_ref())).boxed()
    }

    fn claim<'a>(&'a self, key: &'a str, value: ByteString) -> Answer<'a, Claim> {
        let key = key.to_owned();
        self.write(move |batch| batch.claim(&key, &value)).boxed()
    }

    fn amend<'a>(&'a self, key: &'a str, from: ByteString, to: Option<ByteString>) -> Answer<'a, bool> {
        let key = key.to_owned();
        self.write(move |batch| batch.amend(&key, &from, to.as_ref())).boxed()
    }

    fn enlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool> {
        at_once(self.leases.enlist(instance, session, run))
    }

    fn unlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, ()> {
        self.leases.unlist(instance, session, run);
        at_once(())
    }

    fn is_listed<'a>(&'a self, _: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool> {
        at_once(self.leases.is_listed(session, run))
    }

    fn command<'a>(&'a self, instance: &'a InstanceId, command: Command) -> Answer<'a, bool> {
        std::future::ready(self.leases.command(instance, command)).boxed()
    }

    fn commands<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, Commands> {
        at_once(self.leases.listen(instance))
    }

    fn renew<'a>(&'a self, instance: &'a InstanceId, lease: Duration) -> Answer<'a, Renewal> {
        at_once(self.leases.renew(instance, lease, Instant::now()))
    }

    fn resign<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, ()> {
        self.leases.resign(instance);
        at_once(())
    }

    fn is_dead<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, bool> {
        at_once(self.leases.is_dead(instance))
    }

    fn sweep<'a>(&'a self, by: &'a InstanceId) -> Answer<'a, Vec<DeadInstance>> {
        at_once(self.leases.sweep(by, Instant::now()))
    }

    fn steady_for(&self) -> Duration {
        // There is nobody but us.
        Duration::MAX
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            let (reply, closed) = oneshot::channel();
            if self.requests.send(Request::Close(reply)).await.is_ok() {
                // An error means that it has closed already.
                let _ = closed.await;
            }
            self.leases.end();
        }
        .boxed()
    }
}

fn at_once<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    std::future::ready(Ok(answer)).boxed()
}

/// Reminds the writer to sweep, until the log is closed or dropped.
async fn sweep_regularly(requests: mpsc::WeakSender<Request>, every: Duration) {
    let every = every.max(Duration::from_millis(1));
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match requests.upgrade() {
            // A full queue means that the writer is busy; the next tick will do.
            Some(requests) if !requests.is_closed() => {
                let _ = requests.try_send(Request::Sweep);
            }
            _ => return,
        }
    }
}
