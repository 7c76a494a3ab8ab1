//! One decoder for all framings, so that whoever reads an answer need not know how it is framed.

use super::Framing;
use super::elements::Elements;
use super::lines::Lines;
use crate::sse::{self, Frame, Tail};

/// Reads a stream as it arrives. After each [`Decoder::feed`], take frames with [`Iterator::next`] until there
/// is none; where the stream ended as its transport says, [`Decoder::finish`]. One that broke off is dropped:
/// what is not complete is no event.
///
/// The promises are those of [`sse::Decoder`], for every framing:
/// - The raw bytes of all frames and of the tail are exactly what was fed.
/// - Which events come out does not depend on how the bytes were cut, and each comes out with the first byte
///   that completes it.
/// - Between two feeds it holds at most `event_cap` bytes. A larger event is handed out in pieces.
///
/// The work is linear in the number of bytes, however small the chunks.
#[derive(Debug)]
pub struct Decoder(Kind);

#[derive(Debug)]
enum Kind {
    Sse(Box<sse::Decoder>),
    Lines(Lines),
    Elements(Elements),
}

impl Decoder {
    /// A decoder that keeps events of up to `event_cap` bytes. What counts: of an event stream the block, of
    /// lines the line without its LF, of an array the element.
    pub fn new(framing: Framing, event_cap: usize) -> Self {
        Decoder(match framing {
            Framing::Sse => Kind::Sse(Box::new(sse::Decoder::new(event_cap))),
            Framing::Lines => Kind::Lines(Lines::new(event_cap, false)),
            Framing::Prefixed => Kind::Lines(Lines::new(event_cap, true)),
            Framing::JsonArray => Kind::Elements(Elements::new(event_cap)),
        })
    }

    /// Adds what has arrived. The bytes are copied, see [`sse::Decoder::feed`].
    pub fn feed(&mut self, chunk: &[u8]) {
        match &mut self.0 {
            Kind::Sse(decoder) => decoder.feed(chunk),
            Kind::Lines(lines) => lines.feed(chunk),
            Kind::Elements(elements) => elements.feed(chunk),
        }
    }

    /// Ends the stream, which has ended as its transport says: the event that this end completes, if there is
    /// one, and what is left over. Only framings whose events need no end mark of their own have one: the last
    /// line of NDJSON often lacks its line end.
    pub fn finish(self) -> (Option<Frame>, Tail) {
        match self.0 {
            Kind::Sse(decoder) => (None, decoder.finish()),
            Kind::Lines(lines) => lines.finish(),
            Kind::Elements(elements) => elements.finish(),
        }
    }

    /// How many bytes are held.
    pub fn buffered(&self) -> usize {
        match &self.0 {
            Kind::Sse(decoder) => decoder.buffered(),
            Kind::Lines(lines) => lines.buffered(),
            Kind::Elements(elements) => elements.buffered(),
        }
    }
}

impl Iterator for Decoder {
    type Item = Frame;

    /// The next frame; `None`: feed more (it is not the end, and another call may have one again).
    fn next(&mut self) -> Option<Frame> {
        match &mut self.0 {
            Kind::Sse(decoder) => decoder.next(),
            Kind::Lines(lines) => lines.next(),
            Kind::Elements(elements) => elements.next(),
        }
    }
}
