//! The thread that writes: group commit, recovery, and the sweeps.
//!
//! It must never answer or publish what is not committed. When the database fails it is opened
//! again at once, so that reads go on; writes are tried again after a pause, and until one succeeds
//! every operation is told that its outcome is unknown.

use std::time::{SystemTime, UNIX_EPOCH};

use redb::WriteTransaction;
use tokio::sync::{mpsc, oneshot, watch};

use super::batch::{Batch, Effects};
use super::database::{Place, Slot};
use super::error::Fault;
use super::followers::Followers;
use super::recovery::Condition;
use super::request::{Apply, CLOSED, Request, answer};
use super::retention::{Findings, Sweeper};
use crate::log::{Retention, StoreHealth};

/// Operations that wait for the writer; who comes after them waits for a place.
pub(super) const QUEUE: usize = 1024;

/// Operations that one commit takes.
const BATCH: usize = 512;

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
pub(super) struct Working {
    pub(super) writer: Writer,
    sweeper: Sweeper,
    /// There may be entries of sessions that are gone.
    pub(super) garbage: bool,
    pub(super) condition: Condition,
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
        let mut working =
            Working { writer: self, sweeper: Sweeper::default(), garbage: true, condition: Condition::default() };
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
            let busy = self.garbage && self.condition.works();
            let first = if busy { requests.try_recv().ok() } else { Some(requests.blocking_recv()?) };
            if busy && first.is_none() && requests.is_closed() && requests.is_empty() {
                return None;
            }
            let (mut jobs, mut sweep, mut probe, mut close) = (Vec::new(), false, false, None);
            let mut next = first;
            while let Some(request) = next {
                match request {
                    Request::Apply(job) => jobs.push(job),
                    Request::Sweep => sweep = true,
                    Request::Probe => probe = true,
                    Request::Close(reply) => close = Some(reply),
                }
                let full = jobs.len() >= BATCH || close.is_some();
                next = if full { None } else { requests.try_recv().ok() };
            }
            self.commit(jobs);
            if sweep || probe {
                self.sweep(probe);
            }
            if close.is_some() {
                return close;
            }
        }
    }

    /// One commit for all of these jobs, and their answers.
    fn commit(&mut self, mut jobs: Vec<Box<dyn Apply>>) {
        if jobs.is_empty() && !self.garbage {
            return;
        }
        if let Err(why) = self.ready() {
            return answer(jobs, Err(why));
        }
        loop {
            match self.attempt(&mut jobs) {
                Ok(()) => return answer(jobs, Ok(())),
                // What is damaged concerns one session; the others must not wait for it.
                Err(Failure { job: Some(at), fault: fault @ Fault::Damaged(_) }) => {
                    tracing::error!(%fault, "an operation failed");
                    answer(vec![jobs.remove(at)], Err(fault.into()));
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
        self.transact(|batch| {
            for (at, job) in jobs.iter_mut().enumerate() {
                job.apply(batch).map_err(|fault| Failure { job: Some(at), fault })?;
            }
            if remove_garbage {
                batch.remove_garbage()?;
            }
            Ok(())
        })
    }

    /// Applies `work` to a batch and commits it; then tells followers.
    fn transact(&mut self, work: impl FnOnce(&mut Batch<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let retention = self.writer.retention;
        let effects = self.writer.slot.with(|database| {
            let transaction = database.begin_write()?;
            Ok(apply(transaction, retention, work))
        })??;
        self.garbage = effects.as_ref().is_some_and(|effects| effects.garbage);
        if let Some(Effects { pushes, footprint, .. }) = effects {
            self.writer.footprint = self.writer.footprint.saturating_add_signed(footprint);
            self.writer.followers.publish(pushes);
            self.works();
        }
        Ok(())
    }

    /// Looks for what is to be removed, and removes it; with `probe`, commits in any case.
    fn sweep(&mut self, probe: bool) {
        self.writer.followers.forget_who_left();
        if self.ready().is_err() {
            return;
        }
        let (retention, now_ms) = (self.writer.retention, now_ms());
        let (footprint, limit) = (self.writer.footprint, self.writer.total_bytes);
        let sweeper = &mut self.sweeper;
        let found = self.writer.slot.read(|read| sweeper.look(read, &retention, now_ms, footprint, limit));
        let outcome = found.map_err(Failure::from).and_then(|found: Findings| {
            // After a failure, a commit that nobody waits for shows whether the disk works again.
            if found.is_empty() && self.condition.works() && !probe {
                return Ok(());
            }
            self.transact(|batch| {
                batch.changed = true;
                Ok(batch.remove(&found)?)
            })
        });
        match outcome {
            Ok(()) => {}
            Err(Failure { fault: fault @ Fault::Damaged(_), .. }) => tracing::error!(%fault, "a sweep failed"),
            Err(Failure { fault, .. }) => {
                self.fail(fault);
            }
        }
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

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
