//! The states of a run.

use std::fmt;

use bytestring::ByteString;

use super::{Offset, RunId};

/// A run that has not ended, as a new subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveRun {
    /// Its id.
    pub run: RunId,
    /// Offset of its `started` entry.
    pub started: Offset,
    /// The agent that answers.
    pub source: Option<ByteString>,
    /// The run that has begun it.
    pub parent: Option<RunId>,
    /// Whether its upstream is silent beyond the stall limit.
    pub stalled: bool,
}

impl ActiveRun {
    /// The run that an entry at `started` begins.
    pub fn new(run: RunId, started: Offset) -> Self {
        ActiveRun { run, started, source: None, parent: None, stalled: false }
    }
}

/// What a run's `run` entries say happened. Exactly one `Started` and exactly one terminal per run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// The upstream answered with a stream; the run's first entry.
    Started,
    /// The upstream has sent nothing for the stall limit.
    Stalled,
    /// The upstream sends again after `Stalled`.
    Resumed,
    /// The run is over.
    Ended(Terminal),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terminal {
    /// The upstream's answer ended as HTTP says it should.
    Completed,
    /// The upstream reset, broke off, or said that it failed.
    Failed,
    /// Somebody stopped the run.
    Cancelled,
    /// The sidecar that drove the run died or was told to leave.
    Interrupted,
}

impl RunState {
    /// The state's name in the log and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Started => "started",
            RunState::Stalled => "stalled",
            RunState::Resumed => "resumed",
            RunState::Ended(terminal) => terminal.as_str(),
        }
    }

    /// The state with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "started" => RunState::Started,
            "stalled" => RunState::Stalled,
            "resumed" => RunState::Resumed,
            other => RunState::Ended(Terminal::parse(other)?),
        })
    }

    /// How the run ended, if this state is its end.
    pub fn terminal(self) -> Option<Terminal> {
        match self {
            RunState::Ended(terminal) => Some(terminal),
            _ => None,
        }
    }
}

impl Terminal {
    /// The terminal's name in the log and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Terminal::Completed => "completed",
            Terminal::Failed => "failed",
            Terminal::Cancelled => "cancelled",
            Terminal::Interrupted => "interrupted",
        }
    }

    /// The terminal with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Terminal::Completed, Terminal::Failed, Terminal::Cancelled, Terminal::Interrupted]
            .into_iter()
            .find(|t| t.as_str() == name)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
