//! The direct caller: served when the log has what it gets, or ahead of a store that is slow.

use bytes::{BufMut, Bytes, BytesMut};

use super::{CallerEnd, Durability, End, Owner, Tagging};
use crate::run::TaggedId;
use crate::run::books::Held;
use crate::session::{Offset, RunState, Terminal};

impl Owner {
    pub(super) fn hurry(&mut self) {
        let (session, run) = (&self.spec.session, &self.spec.run);
        tracing::debug!(%session, %run, "the store is slow; the direct caller is served ahead of it");
        if self.ended {
            if self.books.holds()
                && let Some(terminal) = self.books.withdraw()
            {
                self.say_eager(self.stored_n + 1);
                self.books.record(terminal);
            }
            return self.finish_caller();
        }
        self.durability = Durability::Eager { first_n: self.stored_n + 1 };
        self.release(u64::MAX);
    }

    /// The store has been away for longer than a run waits, or more has come than may wait. With a caller who
    /// is served all the same the run goes on without being kept; without one there is nobody to go on for. The
    /// terminal waits in memory for the store's return.
    pub(super) fn give_up(&mut self, why: &'static str) -> Option<End> {
        self.gave_up = true;
        if self.spec.ids != Tagging::Off
            && let Some(caller) = self.caller.take()
        {
            // Never ahead of the log: it comes back with the last id that it has.
            caller.abort("the store is away; resume from the log");
        }
        if self.ended {
            return None;
        }
        let (session, run) = (&self.spec.session, &self.spec.run);
        tracing::error!(%session, %run, why, "the rest of this run is not kept");
        self.books.abandon();
        if self.caller.is_none() {
            return Some(End::broken(Terminal::Failed, "store_unavailable"));
        }
        if let Durability::Eager { first_n } = self.durability {
            self.say_eager(first_n);
        }
        let details = self.terminal_details(Terminal::Failed, "store_unavailable");
        self.state(RunState::Ended(Terminal::Failed), &details.to_string());
        self.over();
        None
    }

    /// Nothing more will be stored; the caller is served on.
    pub(super) fn over(&mut self) {
        self.durability = Durability::Over;
        if self.spec.ids == Tagging::On
            && let Some(caller) = self.caller.take()
        {
            // Events without our ids would come again when it resumes.
            caller.abort("the rest of this run has no ids");
        }
        self.release(u64::MAX);
    }

    /// Lets bytes go whose entries need not be waited for (any more).
    pub(super) fn release(&mut self, n: u64) {
        while let Some(held) = self.books.release(n) {
            self.forward(held, Offset::ZERO);
        }
    }

    /// Ends the caller's body, after everything that was read for it.
    pub(super) fn finish_caller(&mut self) {
        self.release(u64::MAX);
        match (self.caller.take(), self.caller_end.take()) {
            (Some(caller), Some(CallerEnd::Clean(trailers))) => caller.end(trailers),
            (Some(caller), Some(CallerEnd::Broken(reason))) => caller.abort(reason),
            _ => {}
        }
    }

    pub(super) fn forward(&mut self, held: Held, offset: Offset) {
        let Some(caller) = &self.caller else { return };
        let raw = match self.spec.ids == Tagging::On && held.event && offset != Offset::ZERO {
            true => with_id(&held.raw, &TaggedId::of(&self.spec.session, &self.spec.run, offset)),
            false => held.raw,
        };
        if !caller.send(raw) {
            self.caller = None;
        }
    }
}

/// The block with our id as its last field, so that it wins over one of the upstream's: before the
/// blank line that ends every block.
fn with_id(raw: &Bytes, id: &TaggedId) -> Bytes {
    let blank = if raw.ends_with(b"\r\n") { 2 } else { 1 };
    let (fields, blank) = raw.split_at(raw.len().saturating_sub(blank));
    let line = format!("id: {id}\n");
    let mut out = BytesMut::with_capacity(line.len() + raw.len());
    out.put_slice(fields);
    out.put_slice(line.as_bytes());
    out.put_slice(blank);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{RunId, SessionId};
    use crate::sse::{Decoder, Frame};

    #[test]
    fn our_id_wins_whatever_the_line_ends() {
        let session = SessionId::parse("s").unwrap();
        let id = TaggedId::of(&session, &RunId::parse("r").unwrap(), Offset::new(7, 3));
        for block in ["data: x\n\n", "data: x\r\n\r\n", "data: x\r\r", "id: theirs\ndata: x\n\n", "data: x\n\r\n"] {
            let mut decoder = Decoder::new(1 << 10);
            decoder.feed(&with_id(&Bytes::copy_from_slice(block.as_bytes()), &id));
            let events: Vec<_> = std::iter::from_fn(|| decoder.next())
                .filter_map(|frame| match frame {
                    Frame::Event { event, .. } => Some((event.data.to_string(), event.id.map(|id| id.to_string()))),
                    _ => None,
                })
                .collect();
            assert_eq!(events, [("x".to_owned(), Some("ss1.s.r.7-3".to_owned()))], "{block:?}");
        }
    }
}
