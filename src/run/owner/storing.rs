//! What the log says, and what follows from it for the direct caller.

use serde_json::json;
use tokio::time::Instant;

use super::{Durability, End, Owner};
use crate::log::{Append, Appended, Closed, Opened, RunFlags};
use crate::run::commit::Committed;
use crate::session::{Kind, Offset, Record, RunState, Terminal};
use crate::sse::Event;

impl Owner {
    /// What the log has answered. Somebody may have asked it for the run's end.
    pub(super) fn committed(&mut self, committed: Committed) -> Option<End> {
        self.answered_at = Instant::now();
        let flags = match committed {
            Committed::Opened(opened) => self.opened(opened),
            Committed::Appended(append, outcome) => self.appended(&append, outcome),
            Committed::Looked(flags) => Some(flags),
        };
        flags?.cancel.filter(|_| !self.ended).map(End::cancelled)
    }

    fn opened(&mut self, opened: Opened) -> Option<RunFlags> {
        if let Some(waits) = self.opened.take() {
            // Whoever asked may have stopped waiting.
            let _ = waits.send(opened.clone());
        }
        match opened {
            Opened::Open { started, flags } => {
                self.open = true;
                self.stored_n = self.spec.opening.len() as u64;
                self.seen = Some(started);
                self.advance(started);
                return Some(flags);
            }
            // The upstream was not called, and will not be.
            _ if self.spec.status.is_none() => {
                self.refused = true;
                self.books.abandon();
            }
            other => {
                let (session, run) = (&self.spec.session, &self.spec.run);
                tracing::warn!(%session, %run, outcome = ?other, "the run could not be opened; it is served but not kept");
                self.over();
            }
        }
        None
    }

    fn appended(&mut self, append: &Append, outcome: Appended) -> Option<RunFlags> {
        match outcome {
            Appended::Stored { last, flags, next, .. } => {
                self.frees |= next.is_some();
                self.stored(append, last);
                return Some(flags);
            }
            Appended::Duplicate { last, flags } => {
                // Which run is next was in the answer that was lost.
                self.frees |= ends_run(append);
                self.stored(append, last);
                return Some(flags);
            }
            // Our own terminal, by an attempt whose answer was lost.
            Appended::Closed(Closed::Terminal { offset, .. }) if ends_run(append) => {
                self.frees = true;
                self.stored_n = append.first_n + append.records.len() as u64 - 1;
                self.advance(offset);
            }
            lost => {
                let (session, run) = (&self.spec.session, &self.spec.run);
                tracing::error!(%session, %run, outcome = ?lost, "the log takes no more of this run; its caller is served on");
                self.books.abandon();
                let stored = match lost {
                    Appended::RolledBack { tail, n } => {
                        self.seen = Some(tail).filter(|tail| *tail != Offset::ZERO);
                        Some(n)
                    }
                    Appended::Gap { expected } => Some(expected.saturating_sub(1)),
                    _ => None,
                };
                // A store that lost entries still has the run, active: it must not stay so for ever.
                if let Some(n) = stored.filter(|_| self.durability != Durability::Over) {
                    self.books.go_on_after(n);
                    let details = self.terminal_details("store_lost_entries");
                    self.state(RunState::Ended(Terminal::Failed), &details.to_string());
                }
                self.over();
            }
        }
        None
    }

    fn stored(&mut self, append: &Append, last: Offset) {
        self.seen = Some(last);
        self.stored_n = append.first_n + append.records.len() as u64 - 1;
        self.advance(last);
    }

    /// The entries of the newest append are stored, the last of them at `last`.
    pub(super) fn advance(&mut self, last: Offset) {
        match self.durability {
            Durability::Stored => {
                while let Some(held) = self.books.release(self.stored_n) {
                    // The entries of one append stand side by side, with one `ms`.
                    let behind = self.stored_n - held.n;
                    self.forward(held, Offset::new(last.ms, last.seq.saturating_sub(behind)));
                }
            }
            Durability::Eager { first_n } if !self.ended && (self.books.is_settled() || self.caller.is_none()) => {
                self.durability = Durability::Stored;
                self.say_eager(first_n);
            }
            Durability::Eager { .. } | Durability::Over => {}
        }
    }

    /// Says which entries the direct caller had before they were stored.
    pub(super) fn say_eager(&mut self, first_n: u64) {
        self.status(json!({"code": "eager", "first_n": first_n, "last_n": self.books.last_n()}));
    }

    /// Says something of our own about the run.
    pub(super) fn status(&mut self, data: serde_json::Value) {
        let record = self.record(Kind::Status, Event { name: None, data: data.to_string().into(), id: None });
        self.books.record(record);
    }
}

/// Whether the append holds the run's terminal.
pub(super) fn ends_run(append: &Append) -> bool {
    append.records.last().and_then(Record::state).and_then(RunState::terminal).is_some()
}
