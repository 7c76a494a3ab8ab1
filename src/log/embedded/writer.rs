//! The thread that writes: group commit, recovery, and the sweeps.
//!
//! It must never answer or publish what is not committed. When the database fails it is opened
//! again, at the next operation or sweep; until then every operation is told that its outcome is
//! unknown.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redb::WriteTransaction;
use tokio::sync::{mpsc, oneshot, watch};

use super::batch::{Batch, Effects};
use super::database::{Place, Slot};
use super::error::Fault;
use super::followers::Followers;
use super::retention::{Findings, Sweeper};
use crate::log::{Retention, StoreHealth, Unavailable};

/// Operations that wait for the writer; who comes after them waits for a place.
pub(super) const QUEUE: usize = 1024;

/// Operations that one commit takes.
const BATCH: usize = 512;

/// How soon after a failure the database is tried again: doubled with every failure up to the
/// longest, for a check of a large file takes its time.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_millis(1600);

/// What is said of a log that is closed.
pub(super) const CLOSED: &str = "the log is closed";

/// What the writer is asked to do.
pub(super) enum Request {
    /// Apply this in the next batch.
    Apply(Box<dyn Apply>),
    /// Look for what is to be removed.
    Sweep,
    /// Finish, close the database, answer.
    Close(oneshot::Sender<()>),
}

/// An operation with somebody who waits for its answer.
pub(super) trait Apply: Send {
    /// Applies it; it may be applied again, to another batch, where the first was thrown away.
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault>;

    /// Answers: what it was told by the batch that was committed, or that the outcome is unknown.
    fn answer(self: Box<Self>, outcome: Result<(), Unavailable>);
}

/// An operation and the channel of its answer.
pub(super) struct Job<T, F> {
    pub(super) operation: F,
    pub(super) told: Option<T>,
    pub(super) reply: oneshot::Sender<Result<T, Unavailable>>,
}

impl<T: Send, F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send> Apply for Job<T, F> {
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        self.told = Some((self.operation)(batch)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Unavailable>) {
        let Job { told, reply, .. } = *self;
        // Who no longer waits does not need to hear it.
        let _ = reply.send(outcome.and_then(|()| told.ok_or_else(|| Unavailable::new("not applied"))));
    }
}

/// What the writer works with.
pub(super) struct Writer {
    pub(super) place: Place,
    pub(super) slot: Slot,
    pub(super) followers: std::sync::Arc<Followers>,
    pub(super) health: watch::Sender<StoreHealth>,
    pub(super) retention: Retention,
    pub(super) total_bytes: u64,
    /// Of all sessions.
    pub(super) footprint: u64,
}

/// The writer at work.
struct Working {
    writer: Writer,
    sweeper: Sweeper,
    /// There may be entries of sessions that are gone.
    garbage: bool,
    /// When the database is to be opened again; none: it is open.
    retry_at: Option<Instant>,
    /// How long the next failure makes everybody wait.
    retry_after: Duration,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.health.send_replace(StoreHealth::Down { reason: CLOSED.into() });
    }
}

impl Writer {
    /// Works until it is told to close, or nobody can ask any more.
    pub(super) fn run(self, mut requests: mpsc::Receiver<Request>) {
        let followers = self.followers.clone();
        let slot = self.slot.clone();
        let mut working = Working {
            writer: self,
            sweeper: Sweeper::default(),
            garbage: true,
            retry_at: None,
            retry_after: RETRY_AFTER,
        };
        let closed = working.work(&mut requests);
        requests.close();
        slot.close(CLOSED.into());
        followers.end();
        // The lock of the directory goes before the answer, so that another may take it then.
        drop(working);
        if let Some(closed) = closed {
            let _ = closed.send(());
        }
    }
}

impl Working {
    /// Batch after batch; who asked for the end, if somebody did.
    fn work(&mut self, requests: &mut mpsc::Receiver<Request>) -> Option<oneshot::Sender<()>> {
        loop {
            let busy = self.garbage && self.retry_at.is_none();
            let first = if busy { requests.try_recv().ok() } else { Some(requests.blocking_recv()?) };
            if busy && first.is_none() && requests.is_closed() && requests.is_empty() {
                return None;
            }
            let (mut jobs, mut sweep, mut close) = (Vec::new(), false, None);
            let mut next = first;
            while let Some(request) = next {
                match request {
                    Request::Apply(job) => jobs.push(job),
                    Request::Sweep => sweep = true,
                    Request::Close(reply) => close = Some(reply),
                }
                let full = jobs.len() >= BATCH || close.is_some();
                next = if full { None } else { requests.try_recv().ok() };
            }
            self.commit(jobs);
            if sweep {
                self.sweep();
            }
            if close.is_some() {
                return close;
            }
        }
    }

    /// One commit for all of these jobs, and their answers.
    fn commit(&mut self, mut jobs: Vec<Box<dyn Apply>>) {
        if let Err(why) = self.reopen() {
            return answer(jobs, Err(why));
        }
        loop {
            if jobs.is_empty() && !self.garbage {
                return;
            }
            match self.attempt(&mut jobs) {
                Ok(()) => {
                    self.retry_after = RETRY_AFTER;
                    return answer(jobs, Ok(()));
                }
                // What is damaged concerns one session; the others must not wait for it.
                Err(Failure { job: Some(at), fault: fault @ Fault::Damaged(_) }) => {
                    tracing::error!(%fault, "an operation failed");
                    answer(vec![jobs.remove(at)], Err(fault.into()));
                }
                Err(Failure { job: None, fault: fault @ Fault::Damaged(_) }) => {
                    tracing::error!(%fault, "the entries of sessions that are gone cannot be removed");
                    self.garbage = false;
                }
                Err(Failure { fault, .. }) => {
                    let why = self.fail(fault);
                    return answer(jobs, Err(why));
                }
            }
        }
    }

    fn attempt(&mut self, jobs: &mut [Box<dyn Apply>]) -> Result<(), Failure> {
        let remove_garbage = self.garbage;
        let mut more = false;
        self.transact(|batch| {
            for (at, job) in jobs.iter_mut().enumerate() {
                job.apply(batch).map_err(|fault| Failure { job: Some(at), fault })?;
            }
            if remove_garbage {
                more = batch.remove_garbage()?;
            }
            Ok(())
        })?;
        self.garbage = more || (self.garbage && !remove_garbage);
        Ok(())
    }

    /// Applies `work` to a batch and commits it; then tells followers.
    fn transact(&mut self, work: impl FnOnce(&mut Batch<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let retention = self.writer.retention;
        let effects = self.writer.slot.with(|database| {
            let transaction = database.begin_write()?;
            Ok(apply(transaction, retention, work))
        })??;
        if let Some(Effects { pushes, footprint, buried }) = effects {
            self.writer.footprint = self.writer.footprint.saturating_add_signed(footprint);
            self.garbage |= buried;
            self.writer.followers.publish(pushes);
        }
        Ok(())
    }

    /// Looks for what is to be removed, and removes it.
    fn sweep(&mut self) {
        self.writer.followers.forget_who_left();
        if self.reopen().is_err() {
            return;
        }
        let (retention, now_ms) = (self.writer.retention, now_ms());
        let (footprint, limit) = (self.writer.footprint, self.writer.total_bytes);
        let sweeper = &mut self.sweeper;
        let found = self.writer.slot.read(|read| sweeper.look(read, &retention, now_ms, footprint, limit));
        let outcome = found.map_err(Failure::from).and_then(|found: Findings| {
            if found.is_empty() {
                return Ok(());
            }
            self.transact(|batch| Ok(batch.remove(&found)?))
        });
        match outcome {
            Ok(()) => {}
            Err(Failure { fault: fault @ Fault::Damaged(_), .. }) => tracing::error!(%fault, "a sweep failed"),
            Err(Failure { fault, .. }) => {
                self.fail(fault);
            }
        }
    }

    /// The database has failed: it is closed, to be opened again, and everybody is told.
    fn fail(&mut self, fault: Fault) -> Unavailable {
        let why = Unavailable::from(fault);
        tracing::error!(reason = why.detail, "the store failed");
        self.writer.slot.close(why.detail.clone());
        self.is_down(&why);
        why
    }

    fn is_down(&mut self, why: &Unavailable) {
        self.retry_at = Some(Instant::now() + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(LONGEST_RETRY);
        self.writer.health.send_replace(StoreHealth::Down { reason: why.detail.clone() });
    }

    /// Opens the database again if it has failed, and it is time.
    fn reopen(&mut self) -> Result<(), Unavailable> {
        let Some(retry_at) = self.retry_at else { return Ok(()) };
        if Instant::now() < retry_at {
            let health = self.writer.health.borrow();
            return Err(match &*health {
                StoreHealth::Down { reason } => Unavailable::new(reason.clone()),
                StoreHealth::Up => Unavailable::new("the store has failed"),
            });
        }
        match self.writer.place.open_again() {
            Ok(database) => self.writer.slot.put(database),
            Err(fault) => {
                let why = Unavailable::from(fault);
                self.is_down(&why);
                return Err(why);
            }
        }
        self.retry_at = None;
        self.garbage = true;
        tracing::info!("the store works again");
        self.writer.health.send_replace(StoreHealth::Up);
        // The commit that failed may be in the file, and nobody was told of it.
        self.writer.followers.check_all();
        Ok(())
    }
}

/// What went wrong, and in which job.
struct Failure {
    job: Option<usize>,
    fault: Fault,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure { job: None, fault }
    }
}

/// The effects of `work`, committed; none where it changed nothing.
fn apply(
    transaction: WriteTransaction,
    retention: Retention,
    work: impl FnOnce(&mut Batch<'_>) -> Result<(), Failure>,
) -> Result<Option<Effects>, Failure> {
    let mut batch = Batch::begin(&transaction, retention, now_ms())?;
    work(&mut batch)?;
    if !batch.changed {
        drop(batch);
        transaction.abort().map_err(Fault::from)?;
        return Ok(None);
    }
    let effects = batch.finish()?;
    transaction.commit().map_err(Fault::from)?;
    Ok(Some(effects))
}

fn answer(jobs: Vec<Box<dyn Apply>>, outcome: Result<(), Unavailable>) {
    jobs.into_iter().for_each(|job| job.answer(outcome.clone()));
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
