//! Runs that wait until their route is free, and every definite answer.
//!
//! A queued run is a line in its session's queue, not a run yet: it has no owner and no entries. The
//! end of a run marks the next one of its route as starting, under an instance and until a deadline;
//! opening it removes it from the queue. A mark whose time has passed counts for nothing, so that
//! the run is first in its queue again and any instance may start it: its id makes it one run.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use crate::session::{InstanceId, RunId};

/// How long the mark holds that the end of a run leaves on the next.
pub const START_WITHIN: Duration = Duration::from_secs(10);

/// What a run does whose route is busy: has an active root run, or others that wait for it.
///
/// A run with a parent, and one whose key was cancelled, is never held back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnBusy {
    /// Opens beside the others.
    #[default]
    Parallel,
    /// The same, if it is in the queue, else never ([`Closed::Unknown`](super::Closed::Unknown)): who starts a
    /// queued run opens it so. It may have been withdrawn, or its session erased.
    Waited,
    /// The same for a run that was open and that the store has lost: but not into a session that was erased meanwhile.
    Again,
    /// Does not open.
    Reject,
    /// Waits in the session's queue.
    Queue(Waiting),
}

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// All that is needed to start the run later; never credentials. Opaque.
    pub item: Bytes,
    /// The name of the client that sent it, for those who list the queue.
    pub client: Option<ByteString>,
    /// What the queue of the session, all routes together, may hold with this run in it.
    pub limits: QueueLimits,
}

/// Bounds of a queue; a run that does not fit is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Runs.
    pub depth: usize,
    /// Bytes of their items.
    pub bytes: u64,
}

/// A run that waits, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedRun {
    /// The run that it will be.
    pub run: RunId,
    /// The key of its `send`, by which it can be withdrawn.
    pub key: Option<ByteString>,
    /// Its route.
    pub route: ByteString,
    /// Who sent it.
    pub client: Option<ByteString>,
    /// What it waits with. Opaque.
    pub item: Bytes,
    /// Its place among those of its route, from 1.
    pub position: u64,
    /// Who is starting it now.
    pub starting: Option<InstanceId>,
}

/// A run that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToStart {
    /// The run that it will be.
    pub run: RunId,
    /// The key of its `send`.
    pub key: Option<ByteString>,
    /// Its route.
    pub route: ByteString,
    /// Who sent it.
    pub client: Option<ByteString>,
    /// What it waited with.
    pub item: Bytes,
}

/// The definite answer to [`Log::start_queued`].
///
/// [`Log::start_queued`]: super::Log::start_queued
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// The first of every route that is free, marked for the caller: to be opened before the mark's
    /// time has passed, or marked again by the same call.
    pub yours: Vec<ToStart>,
    /// Others are marked by somebody else; the first of those marks ends after this. Who looks after
    /// the dead asks again then.
    pub others: Option<Duration>,
}
