//! What may be written, by whom, and every definite answer.

use bytestring::ByteString;

use super::{Command, OnBusy};
use crate::session::{InstanceId, Offset, Record, RunId, SessionId, Subject, Terminal};

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
    /// Somebody who writes to the session directly. All records of an append belong to one run, which
    /// must be active, or to none.
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
    /// The run that has begun this one; `None`: this is a root.
    pub parent: Option<RunId>,
    /// The key of the `send` that asked for the run, by which it can be cancelled.
    pub key: Option<ByteString>,
    /// The name of the route that the run goes through.
    pub route: ByteString,
    /// What to do where the route is busy.
    pub on_busy: OnBusy,
    /// Whose request it is: binds the session, as [`Log::bind`](super::Log::bind) does.
    pub subject: Option<Subject>,
}

impl OpenRun {
    /// A root run without a key, on no named route, nobody's.
    pub fn new(session: SessionId, run: RunId, owner: InstanceId, nonce: ByteString, records: Vec<Record>) -> Self {
        let (parent, key, route, on_busy, subject) = (None, None, ByteString::new(), OnBusy::Parallel, None);
        OpenRun { session, run, owner, nonce, records, parent, key, route, on_busy, subject }
    }
}

/// The definite answers to [`OpenRun`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The run is open (now, or by an earlier attempt of the same caller).
    Open {
        /// Offset of its `started` entry.
        started: Offset,
        /// The run's flags: its key may have been cancelled before the run was there.
        flags: RunFlags,
    },
    /// The run waits in the queue (now, or by an earlier attempt). Nobody drives it.
    Queued {
        /// Its place among those that wait for the route, from 1.
        position: u64,
    },
    /// The queue has no room for the run.
    QueueFull,
    /// The route is busy.
    Busy {
        /// The active root runs of the route, then those that wait for it.
        runs: Vec<RunId>,
    },
    /// Somebody else has a run of this id; a run that was queued may have been started by now.
    Fenced,
    /// The run has ended already (taken over before it was opened, or withdrawn from the queue), or
    /// the session was erased.
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
    /// What the log lacks of this writer before `first_n` is gone for good, as `records[0]` says: no
    /// [`Appended::Gap`] for it. For writers that have sent again what the store lost, as far as they
    /// still had it.
    pub skips: bool,
}

/// What others asked of a run; the answers to its opening and to every append carry it to the owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFlags {
    /// Somebody asked for the run's cancellation: who, as [`CancelRequest::by`](super::CancelRequest::by) had it.
    pub cancel: Option<ByteString>,
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
        /// The terminal has made the route free for this queued run, which is marked for the owner:
        /// ask [`Log::start_queued`](super::Log::start_queued) for it.
        next: Option<RunId>,
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
    /// Details of the terminal entry: a JSON object. The store adds `duration_ms`, since the run's start
    /// by its own clock, and where the run's cancellation was asked for `by`, who asked.
    pub details: ByteString,
}

impl Takeover {
    /// The details as the store writes them, for a run that took `duration_ms` and whose cancellation
    /// was asked for by `by` (a JSON object; empty: not known).
    pub(super) fn whole_details(details: &str, duration_ms: u64, by: Option<&str>) -> ByteString {
        let by = by.filter(|by| !by.is_empty()).map(|by| format!(r#""by":{by},"#)).unwrap_or_default();
        let comma = if details == "{}" { "" } else { "," };
        let rest = details.strip_prefix('{').unwrap_or("}");
        format!(r#"{{{by}"duration_ms":{duration_ms}{comma}{rest}"#).into()
    }
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
    /// The run waits in the queue, and stays there: see
    /// [`Log::start_queued`](super::Log::start_queued).
    Queued,
    /// The run was never opened, and now never can be.
    NeverStarted,
    /// The session is gone.
    Closed(Closed),
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease holds for another lease time.
    Alive {
        /// The commands that nobody was handed yet, oldest first.
        commands: Vec<Command>,
    },
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
