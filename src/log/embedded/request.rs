//! What the writer can be asked, and how its answers find their way back.

use tokio::sync::oneshot;

use super::batch::Batch;
use super::error::Fault;
use crate::log::Unavailable;

/// What is said of a log that is closed.
pub(super) const CLOSED: &str = "the log is closed";

/// What the writer is asked to do.
pub(super) enum Request {
    /// Apply this in the next batch.
    Apply(Box<dyn Apply>),
    /// Look for what is to be removed.
    Sweep,
    /// A read failed: find out whether the database still works.
    Probe,
    /// Finish, close the database, answer.
    Close(oneshot::Sender<()>),
}

/// An operation with somebody who waits for its answer.
pub(super) trait Apply: Send {
    /// Applies it; it may be applied again, to another batch, where the first was thrown away.
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault>;

    /// Answers: what the batch told it, now that it is committed; or that the outcome is unknown.
    fn answer(self: Box<Self>, outcome: Result<(), Unavailable>);
}

/// An operation and the channel of its answer.
pub(super) struct Job<T, F> {
    operation: F,
    told: Option<T>,
    reply: oneshot::Sender<Result<T, Unavailable>>,
}

impl<T, F> Job<T, F> {
    /// A job that sends its answer to `reply`.
    pub(super) fn new(operation: F, reply: oneshot::Sender<Result<T, Unavailable>>) -> Self {
        Job { operation, told: None, reply }
    }
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

/// Answers all of them.
pub(super) fn answer(jobs: Vec<Box<dyn Apply>>, outcome: Result<(), Unavailable>) {
    jobs.into_iter().for_each(|job| job.answer(outcome.clone()));
}
