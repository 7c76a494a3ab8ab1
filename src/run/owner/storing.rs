//! What the log says, and what follows from it for the direct caller.

use serde_json::json;
use tokio::time::Instant;

use super::{Durability, End, Owner};
use crate::log::{Append, Appended, Closed, Lost, Opened, RunFlags};
use crate::run::commit::Committed;
use crate::session::{Kind, Offset, Record, RunState};
use crate::sse::Event;
use crate::telemetry::{EntriesResent, Fact};

impl Owner {
    /// What the log has answered. Somebody may have asked it for the run's end.
    pub(super) fn committed(&mut self, committed: Committed) -> Option<End> {
        self.answered_at = Instant::now();
        let flags = match committed {
            Committed::Opened(opened) => self.opened(opened),
            Committed::Appended(append, outcome) => self.appended(&append, outcome),
            Committed::Looked { flags, lost } => {
                self.probes |= lost;
                Some(flags)
            }
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
                self.seen = Some(started);
                // A log that had lost the run has nothing else of it.
                self.go_back_to(self.spec.opening.len() as u64);
                self.advance(started);
                return Some(flags);
            }
            // The upstream was not called, and will not be.
            _ if self.spec.status.is_none() && !self.open => {
                self.refused = true;
                self.books.abandon();
            }
            other => {
                let (session, run) = (&self.spec.session, &self.spec.run);
                tracing::warn!(%session, %run, outcome = ?other, "the run could not be opened; it is served but not kept");
                self.books.abandon();
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
                self.stored(append, offset);
            }
            Appended::RolledBack { tail, n } => {
                self.runs.doubts.raise();
                self.seen = Some(tail).filter(|tail| *tail != Offset::ZERO);
                self.lost(n);
            }
            Appended::Gap { expected } => self.lost(expected.saturating_sub(1)),
            // The log has nothing at all of what we know.
            Appended::Closed(Closed::Unknown) if self.seen.is_none() => self.lost(0),
            lost => {
                let (session, run) = (&self.spec.session, &self.spec.run);
                tracing::error!(%session, %run, outcome = ?lost, "the log takes no more of this run; its caller is served on");
                self.books.abandon();
                self.over();
            }
        }
        None
    }

    /// The log has the entries of this run only up to number `n`. The rest is appended again, after the opening where that is
    /// lost as well.
    fn lost(&mut self, n: u64) {
        self.went_back += 1;
        self.terminal_at = None;
        if n < self.spec.opening.len() as u64 {
            self.opens = true;
        } else {
            self.go_back_to(n);
        }
    }

    fn go_back_to(&mut self, n: u64) {
        let (again, lost) = self.books.go_back_to(n);
        self.stored_n = self.books.appended_n();
        if again > 0 || lost.is_some() {
            let (session, run, lost) = (&self.spec.session, &self.spec.run, lost.map_or(0, Lost::count));
            EntriesResent { session, run, entries: again as u64, lost }.emit(&self.runs.metrics);
        }
    }

    fn stored(&mut self, append: &Append, last: Offset) {
        self.seen = Some(last);
        self.stored_n = self.books.appended_n();
        self.went_back = 0;
        if ends_run(append) {
            self.terminal_at = Some(last);
        }
        self.let_go();
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
