//! What the decoder hands out: pieces of the stream that know what they mean.

use bytes::Bytes;
use bytestring::ByteString;

/// The next piece of the stream. The raw bytes of all frames and of the [`Tail`], one after the
/// other, are exactly what was fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes that dispatch nothing: comments, blank lines, blocks without data, a BOM, the LF of a
    /// CRLF whose CR was handed out before.
    Filler(Bytes),
    /// One dispatched event.
    Event {
        /// Its block from its first field to its blank line. The LF of a final CRLF is missing
        /// where it had not arrived; it then follows as [`Frame::Filler`].
        raw: Bytes,
        /// What a parser makes of it.
        event: Event,
    },
    /// Bytes of a block above the cap, handed out as they come: they may end anywhere.
    OversizePart(Bytes),
    /// The last bytes of a block above the cap.
    OversizeEnd {
        /// The rest of the block, to its blank line.
        raw: Bytes,
        /// Whether the block would have dispatched an event (it has a `data` field).
        event: bool,
    },
}

impl Frame {
    /// The piece as the upstream sent it.
    pub fn raw(&self) -> &Bytes {
        match self {
            Frame::Filler(raw)
            | Frame::OversizePart(raw)
            | Frame::Event { raw, .. }
            | Frame::OversizeEnd { raw, .. } => raw,
        }
    }
}

/// One dispatched event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The `event` field; none where there was none, or an empty one: both mean `message`.
    pub name: Option<ByteString>,
    /// The `data` fields, joined by LF. Holds no CR.
    pub data: ByteString,
    /// The last event id, where it was set since the event before this one (by this block, by
    /// blocks without data, or by a block above the cap); `Some("")` resets it. A reader that
    /// applies these in order knows, at every event, the same last event id as a parser of the
    /// stream itself.
    pub id: Option<ByteString>,
}

/// What is left when the stream ends: a strict parser discards it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The bytes that no frame has handed out. Those of an unfinished block above the cap have been
    /// handed out as [`Frame::OversizePart`] and are not here.
    pub raw: Bytes,
    /// Whether an event was cut off: a line end and a blank line more would have dispatched one.
    pub event: bool,
}
