//! What a run is to be, as whoever begins it says.

use std::time::Duration;

use bytestring::ByteString;

use crate::dialect::Format;
use crate::log::OnBusy;
use crate::run::SideCall;
use crate::session::{Record, RunId, SessionId, Subject};

/// A run to drive.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// Where.
    pub session: SessionId,
    /// The run's id.
    pub run: RunId,
    /// Its first entries, the last of them its `started`.
    pub opening: Vec<Record>,
    /// The upstream's status, for the terminal; `None`: it has not answered yet.
    pub status: Option<u16>,
    /// The name of the agent, on every entry.
    pub source: Option<ByteString>,
    /// The run that has begun this one.
    pub parent: Option<RunId>,
    /// The key of the `send` that asked for it.
    pub key: Option<ByteString>,
    /// The name of its route.
    pub route: ByteString,
    /// What to do where the route is busy.
    pub on_busy: OnBusy,
    /// Whose request it is.
    pub subject: Option<Subject>,
    /// What the calls below need of the run's events: names, and JSON pointers into their data.
    pub values: Vec<(String, String)>,
    /// What to tell the upstream when the run is cancelled, beside closing its connection.
    pub on_cancel: Option<SideCall>,
    /// How the upstream is given something new to work on.
    pub steer: Option<SideCall>,
    /// What the answer is, as its head says; of a run that was open before it, what `Answer` says counts.
    pub format: Format,
    /// How the end of its bytes is known; of a run that was open before it, what `Answer` says counts.
    pub ending: Ending,
    /// Whether the direct caller gets tagged ids; such a caller is never served before the log has
    /// the event.
    pub ids: Tagging,
    /// How long a run goes on that all its callers have left; `None`: to its end.
    pub grace: Option<Duration>,
    /// Silence after which the run is said to be stalled.
    pub stall: Duration,
    /// Silence after which it has failed.
    pub stall_limit: Duration,
}

/// How the end of a run's bytes is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// By the framing of HTTP: a length, a last chunk, the end of an HTTP/2 stream.
    #[default]
    Delimited,
    /// By nothing but the close of the connection (RFC 9112 §6.3): one that broke looks like one that was done.
    Close,
    /// An agent writes it, and says by HTTP when it is done. It owes nobody the end of a dialect.
    Upload,
}

/// Whether the direct caller's events get our ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagging {
    /// No.
    Off,
    /// Yes, in place of the upstream's.
    On,
    /// Yes, unless the upstream's first event has an id of its own.
    UnlessTheirs,
}
