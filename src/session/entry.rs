//! One item of the log.

use bytestring::ByteString;

use super::{Offset, RunId, RunState};

/// What an entry is. Stored as the field `kind`; an absent field means [`Kind::Event`], so that
/// other programs that read the stream see the common case without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One SSE event of a run.
    Event,
    /// An event above the cap was served to the direct caller but not kept; `data` is
    /// `{"bytes":…,"sha256":…}`.
    EventDropped,
    /// A run changed its state: `event` is the state's name, `data` a JSON object with details.
    Run,
    /// What a user sent.
    Input,
    /// The answer of a run whose upstream did not stream: `event` is the HTTP status, `data` its body.
    Result,
    /// A running run was given something new to work on: `event` is what became of it, `data` a JSON object.
    Steer,
    /// Something the sidecar has to say about a run's durability; `data` is a JSON object.
    Status,
}

impl Kind {
    /// The value of the stored field `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::EventDropped => "event_dropped",
            Kind::Run => "run",
            Kind::Input => "input",
            Kind::Result => "result",
            Kind::Steer => "steer",
            Kind::Status => "status",
        }
    }

    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Kind::Event, Kind::EventDropped, Kind::Run, Kind::Input, Kind::Result, Kind::Steer, Kind::Status]
            .into_iter()
            .find(|k| k.as_str() == name)
    }
}

/// The content of an entry, before the log gives it an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// The run it belongs to; none for entries that belong to the session as a whole.
    pub run: Option<RunId>,
    /// The name of the agent (for [`Kind::Input`] and [`Kind::Steer`]: of the client) that wrote it.
    pub source: Option<ByteString>,
    /// The SSE event name as the upstream sent it (none: it sent none), or the run's state.
    pub event: Option<ByteString>,
    /// The upstream's SSE id, where this event changed the stream's last event id.
    pub id: Option<ByteString>,
    /// The SSE data, or a JSON object (see [`Kind`]).
    pub data: ByteString,
}

impl Record {
    /// A `run` record: `state` with `details`, a JSON object.
    pub fn run_state(run: RunId, state: RunState, details: impl Into<ByteString>) -> Self {
        Record {
            kind: Kind::Run,
            run: Some(run),
            source: None,
            event: Some(ByteString::from_static(state.as_str())),
            id: None,
            data: details.into(),
        }
    }

    /// The run's new state, where this is a `run` record.
    pub fn state(&self) -> Option<RunState> {
        match self.kind {
            Kind::Run => RunState::parse(self.event.as_deref()?),
            _ => None,
        }
    }

    /// What it counts towards the byte limits: the length of its texts.
    pub fn size(&self) -> usize {
        let len = |text: &Option<ByteString>| text.as_ref().map_or(0, |t| t.len());
        let run = self.run.as_ref().map_or(0, |r| r.as_str().len());
        run + len(&self.source) + len(&self.event) + len(&self.id) + self.data.len()
    }
}

/// One item of the log, where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its address.
    pub offset: Offset,
    /// Its content.
    pub record: Record,
}
