//! What may be read, and every definite answer.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;

use crate::session::{Entry, Gap, InstanceId, Offset, RunId, SessionId, Terminal};

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

/// The definite answers to [`Log::read`](super::Log::read).
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
    /// Offset of the newest entry that its owner has written. Among the runs of
    /// [`SessionBounds::active`] it may be an older one; [`Log::run`](super::Log::run) knows.
    pub last: Offset,
    /// Its end, if it has ended.
    pub ended: Option<(Offset, Terminal)>,
    /// The run that has begun it.
    pub parent: Option<RunId>,
    /// Somebody asked for its cancellation; who, as `CancelRequest::by` had it.
    pub cancel: Option<ByteString>,
}

/// A row of [`Log::sessions`](super::Log::sessions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session.
    pub session: SessionId,
    /// Offset of its newest entry.
    pub tail: Offset,
    /// How many of its runs are active.
    pub active: usize,
}
