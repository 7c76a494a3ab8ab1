//! The contract of a log: what may be asked of it. The questions and answers stand in
//! `writing`, `reading`, `following`, `control`, `queueing` and `sharing`.
//!
//! Rules that hold for every operation:
//! - An `Err(Unavailable)` means *unknown*, never *failed*: the caller repeats the same call until
//!   the answer is definite. A repeat is always safe.
//! - A reader never sees an entry before the log would also show it to everybody else.
//! - Only [`Log::open_run`] and an append by a producer create a session.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{
    Appeared, Append, Appended, Bounds, CancelRequest, Cancelled, Claim, Command, Commands, DeadInstance, Ephemeral,
    Following, Marked, OpenRun, Opened, OwnSession, PageLimits, Place, Present, QueuedRun, Read, ReadCursor, Renewal,
    RunInfo, SessionRow, Shared, Starts, TakenOver, Takeover, Used,
};
use crate::session::{ConnectionId, Entry, InstanceId, Offset, RunId, SessionId, Subject};

/// The store did not answer, or answered with an error. The outcome is unknown: ask again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store that keeps the sessions does not answer")]
pub struct Unavailable {
    /// What the store or the connection said; for operators, who may know where the store is: clients
    /// get the text of the error. Never holds payload or credentials.
    pub detail: String,
}

impl Unavailable {
    /// An outcome that is unknown because of `detail`.
    pub fn new(detail: impl Into<String>) -> Self {
        Unavailable { detail: detail.into() }
    }
}

/// The answer of every operation.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Unavailable>>;

/// Whether the store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    /// It does.
    Up,
    /// It does not; callers still may try.
    Down {
        /// What went wrong last, for operators.
        reason: String,
    },
}

/// How long sessions are kept, the same in both stores. Active runs are never trimmed away.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// A session nobody has written to for so long expires.
    pub ttl: Duration,
    /// At most so many entries per session, the oldest go first.
    pub max_entries: u64,
    /// At most so many bytes per session, the oldest entries go first.
    pub max_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { ttl: Duration::from_secs(24 * 3600), max_entries: 50_000, max_bytes: 64 << 20 }
    }
}

/// A durable, ordered store of sessions. See the module's rules, and `docs/log.md`.
pub trait Log: Send + Sync + 'static {
    /// Opens a run and writes its first entries.
    fn open_run(&self, open: OpenRun) -> Answer<'_, Opened>;

    /// Appends entries; the last may be the run's terminal.
    fn append(&self, append: Append) -> Answer<'_, Appended>;

    /// Ends a run whose owner is gone.
    fn takeover(&self, takeover: Takeover) -> Answer<'_, TakenOver>;

    /// Asks for the end of runs: flags them, then tells their owners.
    fn cancel(&self, request: CancelRequest) -> Answer<'_, Cancelled>;

    /// The runs that wait in a session, first come first.
    fn queue<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Vec<QueuedRun>>;

    /// Takes the run with this key out of the queue, for good, also where somebody is about to start
    /// it. `None`: none waits (any more).
    fn withdraw<'a>(&'a self, session: &'a SessionId, key: &'a str) -> Answer<'a, Option<RunId>>;

    /// Marks the first queued run of every free route as starting, for `by`, for the time of `hold`.
    /// Asked after a terminal that names a next run or was stored by an attempt whose answer was
    /// lost, and after every takeover.
    fn start_queued<'a>(&'a self, session: &'a SessionId, by: &'a InstanceId, hold: Duration) -> Answer<'a, Starts>;

    /// Reads a page of what comes after `after`, an exact offset of this session, or
    /// [`Offset::ZERO`] for its beginning.
    fn read<'a>(&'a self, session: &'a SessionId, after: Offset, limits: PageLimits) -> Answer<'a, Read>;

    /// The exact offset (exclusive cursor) of a place; `None` where there is no such session.
    fn locate<'a>(&'a self, session: &'a SessionId, place: Place) -> Answer<'a, Option<Offset>>;

    /// Hears of new entries. When the answer comes the subscription is confirmed: everything
    /// appended from now on is either pushed or announced by a [`Push::Check`](super::Push::Check).
    fn follow<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Following>;

    /// What is known of a session.
    fn bounds<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Bounds>;

    /// One entry by its exact offset.
    fn entry<'a>(&'a self, session: &'a SessionId, offset: Offset) -> Answer<'a, Option<Arc<Entry>>>;

    /// What is known of a run of a session.
    fn run<'a>(&'a self, session: &'a SessionId, run: &'a RunId) -> Answer<'a, Option<RunInfo>>;

    /// The session of a run.
    fn session_of<'a>(&'a self, run: &'a RunId) -> Answer<'a, Option<SessionId>>;

    /// Some of the sessions that exist, for operators; in no particular order.
    fn sessions(&self, limit: usize) -> Answer<'_, Vec<SessionRow>>;

    /// Erases a session; late appends get `Closed(Erased)`. `false`: there was none.
    fn erase<'a>(&'a self, session: &'a SessionId) -> Answer<'a, bool>;

    /// Says that a client is here in `session`, with its state, for the time of `lease`. Followers
    /// hear of a client that is new and of a state that is. The session need not exist.
    fn appear<'a>(&'a self, session: &'a SessionId, client: Present, lease: Duration) -> Answer<'a, Appeared>;

    /// Renews the leases of clients that are here; those that are not (any more): they appear again.
    fn stay<'a>(
        &'a self,
        session: &'a SessionId,
        connections: Vec<ConnectionId>,
        lease: Duration,
    ) -> Answer<'a, Vec<ConnectionId>>;

    /// Says that a client has left; followers hear of it.
    fn depart<'a>(&'a self, session: &'a SessionId, connection: &'a ConnectionId) -> Answer<'a, ()>;

    /// Moves a user's read cursor, only ever forward. Followers hear of it.
    fn mark_read<'a>(&'a self, session: &'a SessionId, cursor: ReadCursor) -> Answer<'a, Marked>;

    /// Says something to those who follow the session now, and keeps nothing of it.
    fn say<'a>(&'a self, session: &'a SessionId, said: Ephemeral) -> Answer<'a, ()>;

    /// All that the devices of a session share. Empty where there is no such session.
    fn shared<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Shared>;

    /// Binds a session to a subject, unless it is bound to one, and notes that the subject uses it
    /// now. `false`: it is bound to another, or there is no such session. [`Log::open_run`] does so
    /// for a run with a subject.
    fn bind<'a>(&'a self, session: &'a SessionId, subject: &'a Subject) -> Answer<'a, bool>;

    /// The sessions that are bound to a subject, those that it used last first, at most `limit`;
    /// with `before`, only those that come after it in this order.
    fn sessions_of<'a>(
        &'a self,
        subject: &'a Subject,
        limit: usize,
        before: Option<Used>,
    ) -> Answer<'a, Vec<OwnSession>>;

    /// Claims `key` for `value` unless it is taken. Kept for the retention's ttl.
    fn claim<'a>(&'a self, key: &'a str, value: ByteString) -> Answer<'a, Claim>;

    /// Replaces the value of a claim that still is `from`, and keeps it for another ttl; `to` =
    /// `None` gives the key free. `true`: it is as asked now, by this call or an earlier one.
    fn amend<'a>(&'a self, key: &'a str, from: ByteString, to: Option<ByteString>) -> Answer<'a, bool>;

    /// Lists a run under its instance; comes before [`Log::open_run`]. `false`: the instance has
    /// been declared dead and may open nothing.
    fn enlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool>;

    /// Removes a run from its instance's list; comes after a definite terminal.
    fn unlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, ()>;

    /// Whether somebody lists the run whose owner is `instance`, so that whoever sweeps finds it when
    /// that one dies. `false` for a run that is active: nobody will ever end it, unless its owner lives
    /// and does, or somebody lists it again.
    fn is_listed<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool>;

    /// Leaves a command for an instance, and tells it. `false`: the instance has been declared dead
    /// and will never hear it.
    fn command<'a>(&'a self, instance: &'a InstanceId, command: Command) -> Answer<'a, bool>;

    /// Hears of commands for an instance as they come. When the answer comes, every command from now
    /// on is either delivered here or comes with a renewal of this log.
    fn commands<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, Commands>;

    /// Renews the lease of an instance (creates it at the first call), and hears the commands that
    /// wait for it and that nobody was handed by [`Log::commands`].
    fn renew<'a>(&'a self, instance: &'a InstanceId, lease: Duration) -> Answer<'a, Renewal>;

    /// Ends an instance's lease in good order, once it has no runs.
    fn resign<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, ()>;

    /// Whether an instance that once held a lease is known to drive nothing any more, for good: it
    /// was declared dead, it has resigned, or its process is gone from a log that only one may use.
    fn is_dead<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, bool>;

    /// Instances whose lease has run out, seen so twice at least 0.5 s apart; marks them dead.
    fn sweep<'a>(&'a self, by: &'a InstanceId) -> Answer<'a, Vec<DeadInstance>>;

    /// How long the store is known to have been there for everybody without a break; zero while it
    /// is away. Who looks for the dead needs it: those who could not renew may be alive.
    fn steady_for(&self) -> Duration;

    /// Whether the store answers, now and as it changes.
    fn health(&self) -> watch::Receiver<StoreHealth>;

    /// Whether runs of `session` can be kept just now: where a store has several servers, one may be away.
    fn health_of(&self, _session: &SessionId) -> StoreHealth {
        self.health().borrow().clone()
    }

    /// What the operator should know of the store while it is up: how it may lose what it was given.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Flushes and closes; nothing may be asked afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}
