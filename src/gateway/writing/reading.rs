//! The events of a body, in whatever form it is, one at a time. Sans-I/O.

use super::event::Labels;
use super::lines::Lines;
use crate::run::Dropped;
use crate::session::{Kind, Record};
use crate::sse::{Decoder, Frame};

/// Reads a body as it arrives. After each [`Reader::feed`], take events until there is none; after
/// the last one, [`Reader::finish`].
#[derive(Debug)]
pub(super) enum Reader {
    /// An event that is all here.
    One(Box<Record>),
    /// A line each.
    Lines(Lines),
    /// SSE.
    Events(Events),
    /// There will be no more.
    Over,
}

/// A line that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Its number, from 1.
    pub(super) line: u64,
    /// What is wrong with it.
    pub(super) detail: String,
}

impl Reader {
    /// Of one event.
    pub(super) fn one(record: Record) -> Self {
        Reader::One(Box::new(record))
    }

    /// Of lines of at most `cap` bytes.
    pub(super) fn lines(labels: Labels, cap: usize) -> Self {
        Reader::Lines(Lines::new(labels, cap))
    }

    /// Of an event stream whose events have at most `cap` bytes.
    pub(super) fn events(labels: Labels, cap: usize) -> Self {
        Reader::Events(Events { labels, decoder: Decoder::new(cap), oversize: None })
    }

    /// Adds what has arrived.
    pub(super) fn feed(&mut self, chunk: &[u8]) {
        match self {
            Reader::Lines(lines) => lines.feed(chunk),
            Reader::Events(events) => events.decoder.feed(chunk),
            Reader::One(_) | Reader::Over => {}
        }
    }

    /// The next event; `None`: feed more. After a malformed one there is no other.
    pub(super) fn next(&mut self) -> Option<Result<Record, Malformed>> {
        let next = match self {
            Reader::One(_) => match std::mem::replace(self, Reader::Over) {
                Reader::One(record) => Some(Ok(*record)),
                _ => None,
            },
            Reader::Lines(lines) => lines.next(),
            Reader::Events(events) => events.next().map(Ok),
            Reader::Over => None,
        };
        if let Some(Err(_)) = next {
            *self = Reader::Over;
        }
        next
    }

    /// The body has ended as HTTP says. Everything else has been taken: the last event, where it
    /// lacks its line end.
    pub(super) fn finish(&mut self) -> Option<Result<Record, Malformed>> {
        match std::mem::replace(self, Reader::Over) {
            Reader::Lines(lines) => lines.finish(),
            // What an event stream leaves unfinished is not an event (WHATWG HTML 9.2.6).
            _ => None,
        }
    }
}

/// Reads an event stream.
#[derive(Debug)]
pub(super) struct Events {
    labels: Labels,
    decoder: Decoder,
    oversize: Option<Dropped>,
}

impl Events {
    fn next(&mut self) -> Option<Record> {
        loop {
            match self.decoder.next()? {
                Frame::Filler(_) => {}
                Frame::Event { event, .. } => {
                    let record = self.labels.record(Kind::Event, event.data);
                    return Some(Record { event: event.name, id: event.id, ..record });
                }
                Frame::OversizePart(raw) => self.oversize.get_or_insert_default().add(&raw),
                Frame::OversizeEnd { raw, event } => {
                    let mut dropped = self.oversize.take().unwrap_or_default();
                    dropped.add(&raw);
                    if event {
                        return Some(self.labels.record(Kind::EventDropped, dropped.into_details().into()));
                    }
                }
            }
        }
    }
}
