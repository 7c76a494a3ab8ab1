//! What the devices of a session share beside its entries: who is here, how far each user has read,
//! and what is said only to those who are here. And whose a session is.
//!
//! None of it is in the log: it has no offset, and no order relative to entries. Presence is leased
//! by the instance that holds the client's connection, so that nobody is here for ever; whoever
//! follows the session hears every change as a [`Note`], and reads all of it again
//! ([`Log::shared`](super::Log::shared)) where notes may be missing.

use std::time::Duration;

use bytestring::ByteString;

use crate::session::{ClientName, ConnectionId, Offset, SessionId, Subject};

/// For how long a client is here without being renewed. Whoever follows the session learns of its
/// end so much later at most, also where the instance that held it died without a word.
pub const PRESENCE_LEASE: Duration = Duration::from_secs(15);

/// Clients that may be here in one session; one more is refused.
pub const MOST_PRESENT: usize = 1000;

/// Read cursors that a session keeps; for one more the one that is furthest behind goes.
pub const MOST_CURSORS: usize = 1000;

/// Sessions that are remembered of a subject; for one more the one that it has used least recently
/// goes.
pub const MOST_SESSIONS: usize = 1000;

/// A client that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its connection: a client may be here twice.
    pub connection: ConnectionId,
    /// What it is called.
    pub client: ClientName,
    /// What it says of itself: one JSON value.
    pub state: ByteString,
}

/// The definite answers to [`Log::appear`](super::Log::appear).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appeared {
    /// The client is here, with this state.
    Here,
    /// [`MOST_PRESENT`] are here already.
    Full,
}

/// Whose a read cursor is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum User {
    /// All devices of a subject.
    Subject(Subject),
    /// Where the request does not say whose it is: all connections of this name.
    Client(ClientName),
}

/// How far a user has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadCursor {
    /// Who.
    pub user: User,
    /// By which client.
    pub client: ClientName,
    /// The newest entry that was read.
    pub offset: Offset,
}

/// The definite answers to [`Log::mark_read`](super::Log::mark_read).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// This is the user's cursor now; beyond what was asked for where it had been there already.
    At(Offset),
    /// The session has no entry as new as that.
    Ahead,
    /// There is no such session.
    NotFound,
}

/// What is said only to those who are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ephemeral {
    /// Who says it.
    pub client: ClientName,
    /// The name of the event.
    pub event: Option<ByteString>,
    /// Its data.
    pub data: ByteString,
}

/// What followers of a session hear beside its entries. A hint: it may be lost, or come twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A client has come, or has another state.
    Here(Present),
    /// A client has left.
    Left(ConnectionId),
    /// A user has read on.
    Read(ReadCursor),
    /// Somebody says something.
    Said(Ephemeral),
    /// A run waits, or one waits no longer: see [`Log::queue`](super::Log::queue).
    Queue,
}

/// All that the devices of a session share, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Who is here, in the order of their connections' ids.
    pub present: Vec<Present>,
    /// When the first lease of those ends, unless it is renewed: nobody is told then, so ask again.
    pub lease_ends_in: Option<Duration>,
    /// The users' read cursors.
    pub cursors: Vec<ReadCursor>,
}

/// A row of [`Log::sessions_of`](super::Log::sessions_of).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSession {
    /// Which session, and when the subject used it last.
    pub used: Used,
    /// Offset of its newest entry.
    pub tail: Offset,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How many of its runs are active.
    pub active: usize,
}

/// When a subject used a session last: the order of its sessions, newest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    /// Milliseconds since the Unix epoch.
    pub ms: u64,
    /// Which session.
    pub session: SessionId,
}

impl Used {
    /// The place in the list that `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, session) = text.split_once('.')?;
        Some(Used { ms: ms.parse().ok()?, session: SessionId::from_store(session).ok()? })
    }
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.ms, self.session)
    }
}

impl User {
    /// The user as one word.
    pub fn to_word(&self) -> String {
        match self {
            User::Subject(subject) => format!("s:{}", subject.as_str()),
            User::Client(client) => format!("c:{client}"),
        }
    }

    /// The user that [`to_word`](User::to_word) wrote.
    pub fn from_word(word: &str) -> Option<Self> {
        match word.split_once(':')? {
            ("s", subject) => Subject::parse(subject).map(User::Subject),
            ("c", client) => ClientName::parse(client).ok().map(User::Client),
            _ => None,
        }
    }
}
