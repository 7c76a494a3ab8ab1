//! The decoder: bytes in, frames out, nothing lost in between.

use bytes::BytesMut;

use super::block::Block;
use super::carry::Carry;
use super::oversize::Oversize;
use super::{Frame, Tail, line};

/// U+FEFF, dropped from the stream's meaning (not from its bytes) where it comes first.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Reads an event stream as it arrives. After each [`Decoder::feed`], take frames with
/// [`Iterator::next`] until there is none; after the last one, [`Decoder::finish`].
///
/// Rules: WHATWG HTML 9.2.6. Three promises beyond it:
/// - The raw bytes of all frames and of the tail are exactly what was fed.
/// - Which events come out does not depend on how the bytes were cut, and each comes out with the
///   first byte that completes it: a CR that ends a blank line does not wait for an LF. A comment
///   outside a block comes out at its line end.
/// - Between two feeds it holds at most `event_cap` bytes, and beside them the last event id (no
///   more than one cap). A block of more bytes than that, up to the first byte of its final line
///   end, is handed out in pieces instead of as an event. Inside it `data` and `id` are still
///   noticed, but an `id` or `retry` line that is longer than the cap by itself is ignored.
///
/// The work is linear in the number of bytes, however small the chunks.
#[derive(Debug)]
pub struct Decoder {
    cap: usize,
    /// What no frame has handed out yet.
    buf: BytesMut,
    state: State,
    carry: Carry,
}

#[derive(Debug)]
enum State {
    /// At the very beginning, where a BOM may be.
    Start,
    /// Between blocks, or inside one within the cap.
    Block(Block),
    /// Inside a block above the cap.
    Oversize(Oversize),
}

impl Decoder {
    /// A decoder that keeps blocks of up to `event_cap` bytes.
    pub fn new(event_cap: usize) -> Self {
        Decoder { cap: event_cap, buf: BytesMut::new(), state: State::Start, carry: Carry::default() }
    }

    /// Adds what has arrived. The bytes are copied, on purpose: events live on in the log's memory,
    /// and a slice of the chunk would keep alive the whole read buffer of the connection it came
    /// from, which is many times an event's size.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buf.extend_from_slice(chunk);
    }

    /// Ends the stream. What it leaves unfinished is not an event.
    pub fn finish(self) -> Tail {
        let event = match &self.state {
            State::Start => false,
            State::Block(block) => block.has_data() || line::is_data(block.line(&self.buf)),
            State::Oversize(oversize) => oversize.has_data(),
        };
        Tail { raw: self.buf.freeze(), event }
    }

    /// The last event id: of complete blocks only, empty where none was set.
    pub fn last_event_id(&self) -> &str {
        self.carry.last_event_id()
    }

    /// The reconnection time that the stream asked for last, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        self.carry.retry()
    }

    /// How many bytes are held: fed and not handed out, or kept of a line above the cap.
    pub fn buffered(&self) -> usize {
        match &self.state {
            State::Start | State::Block(_) => self.buf.len(),
            State::Oversize(oversize) => self.buf.len() + oversize.held(),
        }
    }
}

impl Iterator for Decoder {
    type Item = Frame;

    /// The next frame; `None`: feed more (it is not the end, and another call may have one again).
    fn next(&mut self) -> Option<Frame> {
        loop {
            match &mut self.state {
                State::Start => {
                    let bom = self.buf.starts_with(BOM);
                    if !bom && BOM.starts_with(&self.buf) {
                        return None;
                    }
                    self.state = State::Block(if bom { Block::after_bom(BOM.len()) } else { Block::default() });
                }
                State::Block(block) => {
                    let frame = block.next(&mut self.buf, self.cap, &mut self.carry);
                    if frame.is_some() || self.buf.len() <= self.cap {
                        return frame;
                    }
                    self.state = State::Oversize(Oversize::new(block, &self.buf, self.cap));
                    return Some(Frame::OversizePart(self.buf.split().freeze()));
                }
                State::Oversize(oversize) => {
                    let frame = oversize.next(&mut self.buf, self.cap, &mut self.carry);
                    if let Some(Frame::OversizeEnd { .. }) = frame {
                        self.state = State::Block(Block::new(oversize.after_cr));
                    }
                    return frame;
                }
            }
        }
    }
}
