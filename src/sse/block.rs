//! Reading blocks within the cap: every byte is looked at once, however it was cut.

use std::ops::Range;

use bytes::BytesMut;

use super::carry::Carry;
use super::line;
use super::{Event, Frame};

/// Where we are in the bytes that are held. While `begun`, the block begins at index 0.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Bytes before this index dispatch nothing and can go. Above 0 only while not `begun`.
    filler: usize,
    /// Where the current line begins.
    line: usize,
    /// Bytes before this index are known to hold no end of the current line.
    scanned: usize,
    /// An LF that comes next belongs to the line end before.
    pub(super) after_cr: bool,
    /// The block has a field, known or not: from here on comments belong to it.
    pub(super) begun: bool,
    data: Data,
    /// Value of the last `event` field, as a range of the block.
    name: Range<usize>,
}

#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    /// The common case: its value is a range of the block.
    One(Range<usize>),
    /// Joined when the block is complete.
    Many,
}

impl Block {
    /// A block that begins after a line end; `after_cr`: one whose LF may still come.
    pub(super) fn new(after_cr: bool) -> Self {
        Block { after_cr, ..Block::default() }
    }

    /// The beginning of a stream that has a BOM of `len` bytes.
    pub(super) fn after_bom(len: usize) -> Self {
        Block { filler: len, line: len, scanned: len, ..Block::default() }
    }

    /// The next frame in `buf`, if it is complete.
    pub(super) fn next(&mut self, buf: &mut BytesMut, cap: usize, carry: &mut Carry) -> Option<Frame> {
        while let Some(&first) = buf.get(self.line) {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                self.line_ends_at(self.line + 1);
                continue;
            }
            if !self.begun && !matches!(first, b':' | b'\n' | b'\r') {
                if let Some(filler) = self.take_filler(buf) {
                    return Some(filler);
                }
                self.begun = true;
            }
            let Some(end) = line::find_end(&buf[self.scanned..]).map(|at| at + self.scanned) else {
                self.scanned = buf.len();
                break;
            };
            let (next, after_cr) = line::after_end(buf, end);
            self.after_cr = after_cr;
            if end == self.line && self.begun {
                return Some(self.end(buf, end, next, cap, carry));
            }
            if end > self.line && first != b':' {
                self.field(&buf[self.line..end], end, cap, carry);
            }
            self.line_ends_at(next);
        }
        self.take_filler(buf)
    }

    /// Whether one of the block's complete lines is a `data` field.
    pub(super) fn has_data(&self) -> bool {
        !matches!(self.data, Data::None)
    }

    /// The current line, as far as it is here.
    pub(super) fn line<'a>(&self, buf: &'a BytesMut) -> &'a [u8] {
        &buf[self.line..]
    }

    fn line_ends_at(&mut self, next: usize) {
        self.line = next;
        self.scanned = next;
        if !self.begun {
            self.filler = next;
        }
    }

    fn take_filler(&mut self, buf: &mut BytesMut) -> Option<Frame> {
        let filler = std::mem::take(&mut self.filler);
        self.line -= filler;
        self.scanned -= filler;
        (filler > 0).then(|| Frame::Filler(buf.split_to(filler).freeze()))
    }

    fn field(&mut self, line: &[u8], end: usize, cap: usize, carry: &mut Carry) {
        let (name, value) = line::field(line);
        let range = end - value.len()..end;
        match name {
            b"data" => {
                self.data = match self.data {
                    Data::None => Data::One(range),
                    Data::One(_) | Data::Many => Data::Many,
                }
            }
            b"event" => self.name = range,
            // Not from a line above the cap, see `Oversize`: what an id is must not depend on how
            // its bytes were cut.
            _ if line.len() <= cap => carry.field(name, value),
            _ => {}
        }
    }

    /// The blank line whose end is at `end`. An LF after a CR does not count towards the cap: it
    /// may not be here yet.
    fn end(&mut self, buf: &mut BytesMut, end: usize, next: usize, cap: usize, carry: &mut Carry) -> Frame {
        carry.commit();
        let block = std::mem::replace(self, Block::new(self.after_cr));
        let raw = buf.split_to(next).freeze();
        if end + 1 > cap {
            return Frame::OversizeEnd { raw, event: block.has_data() };
        }
        let data = match block.data {
            Data::None => return Frame::Filler(raw),
            Data::One(range) => line::text(raw.slice(range)),
            Data::Many => line::joined_data(&raw),
        };
        let name = (!block.name.is_empty()).then(|| line::text(raw.slice(block.name)));
        Frame::Event { raw, event: Event { name, data, id: carry.take_changed() } }
    }
}
