//! Streams of lines: one JSON value a line (NDJSON, JSON Lines), or one with a code in front of it (AI SDK 4).
//! Whether a line is JSON is looked at only where its end is in doubt: what is not still is what was said.

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use serde::de::IgnoredAny;

use crate::sse::{Event, Frame, Tail, text};

/// The longest code of a prefixed line.
const CODE: usize = 32;

/// Cuts at LF; a CR before it belongs to the line end. Blank lines are filler.
#[derive(Debug)]
pub(super) struct Lines {
    cap: usize,
    /// Lines are `<code>:<json>`.
    prefixed: bool,
    /// What no frame has handed out yet.
    buf: BytesMut,
    /// Bytes before this index are known to hold no LF.
    scanned: usize,
    /// The current line is above the cap: whether it holds anything but space.
    oversize: Option<bool>,
}

impl Lines {
    pub(super) fn new(cap: usize, prefixed: bool) -> Self {
        Lines { cap, prefixed, buf: BytesMut::new(), scanned: 0, oversize: None }
    }

    pub(super) fn feed(&mut self, chunk: &[u8]) {
        self.buf.extend_from_slice(chunk);
    }

    pub(super) fn next(&mut self) -> Option<Frame> {
        let end = memchr(b'\n', &self.buf[self.scanned..]).map(|at| at + self.scanned);
        let Some(end) = end else {
            if self.oversize.is_none() && self.buf.len() <= self.cap {
                self.scanned = self.buf.len();
                return None;
            }
            let raw = self.take(self.buf.len());
            *self.oversize.get_or_insert_default() |= !is_blank(&raw);
            return (!raw.is_empty()).then_some(Frame::OversizePart(raw));
        };
        let raw = self.take(end + 1);
        Some(match self.oversize.take() {
            Some(said) => Frame::OversizeEnd { event: said || !is_blank(&raw), raw },
            None if is_blank(&raw) => Frame::Filler(raw),
            None if end > self.cap => Frame::OversizeEnd { raw, event: true },
            None => self.event(raw).0,
        })
    }

    /// A last line without its end is an event if it is complete: one JSON value.
    pub(super) fn finish(self) -> (Option<Frame>, Tail) {
        if let Some(event) = self.oversize {
            return (Some(Frame::OversizeEnd { raw: Bytes::new(), event }), Tail::default());
        }
        if is_blank(&self.buf) {
            return (None, Tail { raw: self.buf.freeze(), event: false });
        }
        match self.event(Bytes::copy_from_slice(&self.buf)) {
            (frame, true) => (Some(frame), Tail::default()),
            (_, false) => (None, Tail { raw: self.buf.freeze(), event: true }),
        }
    }

    pub(super) fn buffered(&self) -> usize {
        self.buf.len()
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.scanned = 0;
        self.buf.split_to(len).freeze()
    }

    /// The event of a line, and whether it is whole without its line end.
    fn event(&self, raw: Bytes) -> (Frame, bool) {
        let line = raw.strip_suffix(b"\n").unwrap_or(&raw);
        let line = raw.slice_ref(line.strip_suffix(b"\r").unwrap_or(line));
        let code = if self.prefixed { code(&line) } else { None };
        let whole = if self.prefixed { code.is_some() } else { !raw.ends_with(b"\n") && is_json(&line) };
        let event = match code {
            Some(len) => Event { name: Some(text(line.slice(..len))), data: text(line.slice(len + 1..)), id: None },
            None => Event { name: None, data: text(line), id: None },
        };
        (Frame::Event { raw, event }, whole)
    }
}

/// The length of a line's code, if the line is of the form `<code>:<json>`.
fn code(line: &[u8]) -> Option<usize> {
    let len = line[..line.len().min(CODE + 1)].iter().position(|byte| *byte == b':')?;
    (is_code(&line[..len]) && is_json(&line[len + 1..])).then_some(len)
}

/// Whether these bytes may stand in front of the colon.
pub(super) fn is_code(code: &[u8]) -> bool {
    (1..=CODE).contains(&code.len()) && code.iter().all(u8::is_ascii_alphanumeric)
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}
