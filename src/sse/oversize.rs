//! Reading a block above the cap: its bytes are handed on at once, and only what decides its
//! meaning is kept.

use bytes::BytesMut;

use super::Frame;
use super::block::Block;
use super::carry::Carry;
use super::line;

/// A block that is too large to be held.
#[derive(Debug)]
pub(super) struct Oversize {
    /// The beginning of the current line: all of it where it may be an `id` or a `retry`, else
    /// just enough to know its name.
    head: Vec<u8>,
    /// Length of the current line so far.
    line_len: usize,
    /// An LF that comes next belongs to the line end before.
    pub(super) after_cr: bool,
    /// A comment that belongs to no block: its line end is the end.
    comment: bool,
    data: bool,
}

impl Oversize {
    /// Goes on from a block whose bytes so far are `buf`.
    pub(super) fn new(block: &Block, buf: &BytesMut, cap: usize) -> Self {
        let mut oversize = Oversize {
            head: Vec::new(),
            line_len: 0,
            after_cr: block.after_cr,
            comment: !block.begun,
            data: block.has_data(),
        };
        oversize.extend_line(block.line(buf), cap);
        oversize
    }

    /// The next frame: everything in `buf`, or everything up to the block's end. After
    /// [`Frame::OversizeEnd`] nothing but `after_cr` has a meaning.
    pub(super) fn next(&mut self, buf: &mut BytesMut, cap: usize, carry: &mut Carry) -> Option<Frame> {
        let mut at = 0;
        while let Some(&first) = buf.get(at) {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                at += 1;
                continue;
            }
            let Some(end) = line::find_end(&buf[at..]).map(|end| end + at) else {
                self.extend_line(&buf[at..], cap);
                break;
            };
            self.extend_line(&buf[at..end], cap);
            (at, self.after_cr) = line::after_end(buf, end);
            if self.end_line(cap, carry) {
                let raw = buf.split_to(at).freeze();
                return Some(Frame::OversizeEnd { raw, event: self.data });
            }
        }
        (!buf.is_empty()).then(|| Frame::OversizePart(buf.split().freeze()))
    }

    /// Whether the block would dispatch, were it to end here.
    pub(super) fn has_data(&self) -> bool {
        self.data || line::is_data(&self.head)
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.head.len()
    }

    fn extend_line(&mut self, bytes: &[u8], cap: usize) {
        const NAME: usize = b"retry:".len();
        self.line_len += bytes.len();
        let name = NAME.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..name]);
        if self.head.starts_with(b"id:") || self.head.starts_with(b"retry:") {
            let room = cap.saturating_sub(self.head.len());
            self.head.extend_from_slice(&bytes[name..][..room.min(bytes.len() - name)]);
        }
    }

    /// The current line is complete. Whether it ends the block.
    fn end_line(&mut self, cap: usize, carry: &mut Carry) -> bool {
        self.data |= line::is_data(&self.head);
        if self.line_len <= cap {
            let (name, value) = line::field(&self.head);
            carry.field(name, value);
        }
        let blank = self.line_len == 0;
        if blank {
            carry.commit();
        }
        self.head.clear();
        self.line_len = 0;
        blank || self.comment
    }
}
