//! Answers that are no stream of events: kept as one entry, the run's result.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::time::Instant;

use super::{CallerEnd, End, Owner};
use crate::dialect::Observer;
use crate::framing::Decoder;
use crate::run::Dropped;
use crate::run::call::Answer;
use crate::server::Body;
use crate::session::{Kind, Terminal};
use crate::sse::Event;

/// An answer as far as it has come. What is over the cap is counted, not kept.
pub(super) struct Whole {
    kept: BytesMut,
    cap: usize,
    /// All of it, for where it is not kept.
    all: Dropped,
}

impl Whole {
    fn new(cap: usize) -> Self {
        Whole { kept: BytesMut::new(), cap, all: Dropped::default() }
    }

    /// Takes what has come. Where it is too much, or `crowded` says that the runs of this instance hold as
    /// much as they may, only its digest will be kept.
    pub(super) fn add(&mut self, data: &Bytes, crowded: bool) {
        self.all.add(data);
        if crowded || self.kept.len() + data.len() > self.cap {
            (self.kept, self.cap) = (BytesMut::new(), 0);
        } else {
            self.kept.extend_from_slice(data);
        }
    }

    /// How much is in memory.
    pub(super) fn held(&self) -> usize {
        self.kept.len()
    }
}

impl Owner {
    /// The upstream answers. What it says about its answer becomes an entry; the body is to be read.
    pub(super) fn answered(&mut self, answer: Answer) -> Body {
        self.heard = Instant::now();
        self.speaks();
        self.spec.status = Some(answer.head.status);
        self.status(answer.head.answered());
        self.spec.ending = answer.ending;
        match answer.format {
            Some(format) => {
                self.decoder = Decoder::new(format.framing, self.runs.settings.event_bytes);
                self.observer = Some(Observer::new(self.runs.settings.dialects.clone(), format.dialect.clone()));
                self.spec.format = format;
            }
            None => self.whole = Some(Whole::new(self.runs.settings.event_bytes)),
        }
        answer.body
    }

    /// The answer is complete: it is the run's result, where it is text of a size that is kept.
    pub(super) fn result(&mut self, whole: Whole) -> End {
        let Whole { kept, all, .. } = whole;
        let bytes = all.bytes();
        let text = if kept.len() as u64 == bytes { ByteString::try_from(kept.freeze()).ok() } else { None };
        let status = self.spec.status.unwrap_or_default();
        let event = |data: ByteString| Event { name: Some(status.to_string().into()), data, id: None };
        let record = match text {
            Some(text) => self.record(Kind::Result, event(text)),
            None => {
                self.drops(bytes);
                self.record(Kind::EventDropped, event(all.into_details().into()))
            }
        };
        self.books.record(record);
        let (state, reason) = match (200..300).contains(&status) {
            true => (Terminal::Completed, "result"),
            false => (Terminal::Failed, "upstream_status"),
        };
        End { state, reason, by: None, caller: CallerEnd::Clean(None), tail: Bytes::new() }
    }
}
