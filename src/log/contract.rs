//! The contract of a log: what may be asked of it, and every definite answer.
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
use tokio::sync::{mpsc, watch};

use crate::session::{Entry, Gap, InstanceId, Offset, Record, RunId, SessionId, Terminal};

/// The store did not answer, or answered with an error. The outcome is unknown: ask again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store is unavailable: {detail}")]
pub struct Unavailable {
    /// What the store or the connection said; for operators, never holds payload or credentials.
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

/// Proof of ownership of a run: which takeover it comes after, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// 1 for the instance that opened the run, one more with every takeover.
    pub counter: u64,
    /// Random, chosen by the owner when it opens or takes over the run.
    pub nonce: ByteString,
}

/// Who appends. The log keeps, per writer, how many entries it has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The owner of a run.
    Run {
        /// The run.
        run: RunId,
        /// The owner's fence.
        fence: Fence,
    },
    /// Somebody who writes to the session directly.
    Producer {
        /// The producer's own id.
        id: ByteString,
        /// Its generation; an older one is fenced by a newer.
        epoch: u64,
    },
}

/// Opens a run. Idempotent by (`run`, `nonce`).
#[derive(Clone, Debug)]
pub struct OpenRun {
    /// Where; created if it does not exist.
    pub session: SessionId,
    /// The new run's id.
    pub run: RunId,
    /// Who drives it.
    pub owner: InstanceId,
    /// The owner's nonce for this run; the first fence is `(1, nonce)`.
    pub nonce: ByteString,
    /// The run's first entries, the last of them its `started`. They are its entries 1, 2, ….
    pub records: Vec<Record>,
}

/// The definite answers to [`OpenRun`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The run is open (now, or by an earlier attempt of the same caller).
    Open {
        /// Offset of its `started` entry.
        started: Offset,
    },
    /// Somebody else has a run of this id.
    Fenced,
    /// The run has ended already (taken over before it was opened), or the session was erased.
    Closed(Closed),
}

/// Why nothing can be appended any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The run has its terminal.
    Terminal {
        /// Where.
        offset: Offset,
        /// Which.
        state: Terminal,
    },
    /// The session was erased.
    Erased,
    /// The session has expired.
    Expired,
    /// The run is not known here: never opened, or its terminal has been trimmed.
    Unknown,
}

/// Appends entries of one writer. At most one append of a writer may be under way at a time.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where.
    pub session: SessionId,
    /// Who.
    pub writer: Writer,
    /// The number of `records[0]` among all entries of this writer, from 1 (the entries of
    /// [`OpenRun`] count).
    pub first_n: u64,
    /// What. Not empty. A terminal `run` record of the writer's run must be the last and ends it.
    pub records: Vec<Record>,
    /// The newest offset of the session that the caller knows, if any: how a store that went back
    /// in time is noticed.
    pub seen: Option<Offset>,
}

/// What others asked of a run; every append's answer carries it to the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunFlags {
    /// Somebody asked for the run's cancellation.
    pub cancel: bool,
}

/// The definite answers to [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Stored. Where a repeat found a part of the records stored already, `first` is the offset of
    /// the first entry that this call added.
    Stored {
        /// Offset of the first entry added.
        first: Offset,
        /// Offset of the last entry added.
        last: Offset,
        /// The run's flags.
        flags: RunFlags,
    },
    /// All of it was stored already by an earlier attempt.
    Duplicate {
        /// The newest offset that this writer has written.
        last: Offset,
        /// The run's flags.
        flags: RunFlags,
    },
    /// Entries before `first_n` are missing.
    Gap {
        /// The number that must come next.
        expected: u64,
    },
    /// A newer owner, or a newer epoch of the producer, has taken over.
    Fenced,
    /// Nothing can be appended any more.
    Closed(Closed),
    /// The store lost entries that the caller knows of.
    RolledBack {
        /// The newest entry that the log has now ([`Offset::ZERO`]: none).
        tail: Offset,
        /// How many entries of this writer it has.
        n: u64,
    },
}

/// Ends a run whose owner is gone, and fences that owner.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// Where.
    pub session: SessionId,
    /// Which run.
    pub run: RunId,
    /// The nonce of who takes over.
    pub nonce: ByteString,
    /// Details of the terminal entry: a JSON object.
    pub details: ByteString,
}

/// The definite answers to [`Takeover`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenOver {
    /// The terminal is written: `interrupted`, or `cancelled` where that had been asked for.
    Ended {
        /// Where.
        offset: Offset,
        /// Which.
        state: Terminal,
    },
    /// The run had its terminal.
    AlreadyEnded {
        /// Where.
        offset: Offset,
        /// Which.
        state: Terminal,
    },
    /// The run was never opened, and now never can be.
    NeverStarted,
    /// The session is gone.
    Closed(Closed),
}

/// Bounds of one page.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// At most so many entries.
    pub entries: usize,
    /// At most so many bytes of texts, but always at least one entry.
    pub bytes: usize,
}

impl Default for PageLimits {
    fn default() -> Self {
        PageLimits { entries: 512, bytes: 1 << 20 }
    }
}

/// The definite answers to [`Log::read`].
#[derive(Clone, Debug)]
pub enum Read {
    /// The entries after the cursor, contiguous.
    Page(Page),
    /// The cursor names an entry that the log does not have.
    Gap(Gap),
    /// There is no such session.
    NotFound,
}

/// A contiguous slice of the log.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries, in order; empty where the cursor is the tail.
    pub entries: Vec<Arc<Entry>>,
    /// The newest entry of the log when the page was read.
    pub tail: Offset,
}

/// A place in a session that is not named by an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After the newest entry.
    End,
    /// Before the newest `n` entries.
    Last(u64),
    /// Before the first entry whose `ms` is at least this (milliseconds since the Unix epoch).
    Since(u64),
}

/// What is known of a session.
#[derive(Clone, Debug)]
pub enum Bounds {
    /// It exists.
    Live(SessionBounds),
    /// It was erased.
    Erased,
    /// It has expired.
    Expired {
        /// The last offset that it had.
        last: Offset,
    },
    /// It never existed (or so long ago that nothing is known).
    NotFound,
}

/// The bounds of a session that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionBounds {
    /// Offset of the last entry that retention removed; [`Offset::ZERO`] where none was.
    pub trimmed: Offset,
    /// Offset of the newest entry.
    pub tail: Offset,
    /// How many entries are retained.
    pub entries: u64,
    /// Their size in bytes (see `Record::size`).
    pub bytes: u64,
    /// When the session was created, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How long until it expires unless somebody writes to it.
    pub expires_in: Duration,
    /// Its active runs, oldest first.
    pub active: Vec<RunInfo>,
    /// The run that was opened last.
    pub newest_run: Option<RunId>,
}

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInfo {
    /// Its id.
    pub run: RunId,
    /// Who drives it, or did.
    pub owner: InstanceId,
    /// Offset of its `started` entry.
    pub started: Offset,
    /// Its end, if it has ended.
    pub ended: Option<(Offset, Terminal)>,
}

/// What a follower hears. A hint, never a verdict: a push may be lost, late or twice.
#[derive(Clone, Debug)]
pub enum Push {
    /// These entries were appended right after `prev`.
    Entries {
        /// The tail before them.
        prev: Offset,
        /// The entries, contiguous.
        entries: Vec<Arc<Entry>>,
    },
    /// Something happened that this push does not carry (too large, pushes lost, connection
    /// renewed, entries erased): read.
    Check,
}

/// The receiving end of [`Log::follow`]. Dropping it ends the following.
///
/// The channel is bounded; when it is full, pushes are dropped and a [`Push::Check`] is owed.
#[derive(Debug)]
pub struct Following {
    pushes: mpsc::Receiver<Push>,
    overflow: Arc<std::sync::atomic::AtomicBool>,
}

/// The sending end of a [`Following`], kept by the store's implementation.
#[derive(Clone, Debug)]
pub struct PushSender {
    pushes: mpsc::Sender<Push>,
    overflow: Arc<std::sync::atomic::AtomicBool>,
}

/// A bounded channel of pushes; overflow drops pushes and owes a [`Push::Check`].
pub fn following(capacity: usize) -> (PushSender, Following) {
    let (tx, rx) = mpsc::channel(capacity);
    let overflow = Arc::new(std::sync::atomic::AtomicBool::new(false));
    (PushSender { pushes: tx, overflow: overflow.clone() }, Following { pushes: rx, overflow })
}

impl Following {
    /// The next push; `None` when the store has shut down.
    pub async fn next(&mut self) -> Option<Push> {
        use std::sync::atomic::Ordering;
        if self.pushes.is_empty() && self.overflow.swap(false, Ordering::AcqRel) {
            return Some(Push::Check);
        }
        self.pushes.recv().await
    }
}

impl PushSender {
    /// Hands `push` over, or drops it where the follower is behind. `false`: the follower is gone.
    pub fn send(&self, push: Push) -> bool {
        use std::sync::atomic::Ordering;
        let push = match self.pushes.try_send(push) {
            Ok(()) => return true,
            Err(mpsc::error::TrySendError::Full(push)) => push,
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
        };
        // The follower may have emptied the channel since, and be asleep where it no longer looks
        // at the flag. So: the flag first, then once more. If that is refused as well, there is a
        // push that the follower takes after the flag was set.
        self.overflow.store(true, Ordering::Release);
        !matches!(self.pushes.try_send(push), Err(mpsc::error::TrySendError::Closed(_)))
    }

    /// Whether the follower is gone.
    pub fn is_closed(&self) -> bool {
        self.pushes.is_closed()
    }
}

/// An idempotency claim: the first value stored under a key wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The caller's value is stored.
    Won,
    /// Somebody was first; this is theirs.
    Taken(ByteString),
}

/// What an instance hears when it renews its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease holds for another lease time.
    Alive,
    /// Others have declared this instance dead: drop all runs, start over under a new id.
    Dead,
}

/// An instance that has died, with the runs it had listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadInstance {
    /// Its id, marked dead.
    pub instance: InstanceId,
    /// What it drove.
    pub runs: Vec<(SessionId, RunId)>,
}

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

/// A row of [`Log::sessions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session.
    pub session: SessionId,
    /// Offset of its newest entry.
    pub tail: Offset,
    /// How many of its runs are active.
    pub active: usize,
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

    /// Reads a page of what comes after `after`, an exact offset of this session, or
    /// [`Offset::ZERO`] for its beginning.
    fn read<'a>(&'a self, session: &'a SessionId, after: Offset, limits: PageLimits) -> Answer<'a, Read>;

    /// The exact offset (exclusive cursor) of a place; `None` where there is no such session.
    fn locate<'a>(&'a self, session: &'a SessionId, place: Place) -> Answer<'a, Option<Offset>>;

    /// Hears of new entries. When the answer comes the subscription is confirmed: everything
    /// appended from now on is either pushed or announced by a [`Push::Check`].
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

    /// Claims `key` for `value` unless it is taken. Kept for the retention's ttl.
    fn claim<'a>(&'a self, key: &'a str, value: ByteString) -> Answer<'a, Claim>;

    /// Lists a run under its instance; comes before [`Log::open_run`]. `false`: the instance has
    /// been declared dead and may open nothing.
    fn enlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool>;

    /// Removes a run from its instance's list; comes after a definite terminal.
    fn unlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, ()>;

    /// Renews the lease of an instance (creates it at the first call).
    fn renew<'a>(&'a self, instance: &'a InstanceId, lease: Duration) -> Answer<'a, Renewal>;

    /// Ends an instance's lease in good order, once it has no runs.
    fn resign<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, ()>;

    /// Instances whose lease has run out, seen so twice at least 0.5 s apart; marks them dead.
    fn sweep<'a>(&'a self, by: &'a InstanceId) -> Answer<'a, Vec<DeadInstance>>;

    /// Whether the store answers, now and as it changes.
    fn health(&self) -> watch::Receiver<StoreHealth>;

    /// Flushes and closes; nothing may be asked afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}
