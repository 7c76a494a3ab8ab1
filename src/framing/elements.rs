//! A streamed JSON array: each element is an event; brackets, commas and space between them are filler.
//! Knows just enough of JSON (RFC 8259) to see where an element ends: strings, escapes, nesting.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use crate::sse::{Event, Frame, Tail, text};

/// Cuts after each element. What stands outside an array is an event as a whole: the JSON object with which a
/// backend says that it has failed, or any text.
#[derive(Debug)]
pub(super) struct Elements {
    cap: usize,
    /// What no frame has handed out yet. While there is an element, it begins at index 0.
    buf: BytesMut,
    /// Bytes before this index were looked at.
    scanned: usize,
    /// Inside the array.
    inside: bool,
    element: Option<Element>,
}

/// One that has begun.
#[derive(Debug)]
struct Element {
    shape: Shape,
    oversize: bool,
}

#[derive(Debug)]
enum Shape {
    /// An object, an array or a string: it ends by itself.
    Closed { depth: usize, string: bool, escaped: bool },
    /// A number or a word: what follows ends it.
    Open,
    /// Text that is neither an array nor an object: the end of the stream ends it.
    Rest,
}

impl Elements {
    pub(super) fn new(cap: usize) -> Self {
        Elements { cap, buf: BytesMut::new(), scanned: 0, inside: false, element: None }
    }

    pub(super) fn feed(&mut self, chunk: &[u8]) {
        self.buf.extend_from_slice(chunk);
    }

    pub(super) fn next(&mut self) -> Option<Frame> {
        let Some(element) = &mut self.element else {
            let filler = self.filler();
            let begins = self.buf.get(filler).map(|&first| Element::new(first, self.inside));
            let found = begins.is_some();
            self.element = begins;
            return match filler {
                0 if found => self.next(),
                0 => None,
                filler => Some(Frame::Filler(self.take(filler))),
            };
        };
        let Some(end) = element.shape.end_in(&self.buf[self.scanned..]).map(|at| at + self.scanned) else {
            self.scanned = self.buf.len();
            if !element.oversize && self.buf.len() <= self.cap {
                return None;
            }
            element.oversize = true;
            let raw = self.take(self.scanned);
            return (!raw.is_empty()).then_some(Frame::OversizePart(raw));
        };
        let oversize = element.oversize || end > self.cap;
        self.element = None;
        let raw = self.take(end);
        Some(if oversize { Frame::OversizeEnd { raw, event: true } } else { event(raw) })
    }

    /// The end completes what has no end of its own outside an array; an array that is not closed was cut off.
    pub(super) fn finish(self) -> (Option<Frame>, Tail) {
        let raw = self.buf.freeze();
        match self.element {
            Some(Element { shape: Shape::Rest, oversize: true }) => {
                (Some(Frame::OversizeEnd { raw, event: true }), Tail::default())
            }
            Some(Element { shape: Shape::Rest, oversize: false }) => (Some(event(raw)), Tail::default()),
            element => (None, Tail { event: element.is_some(), raw }),
        }
    }

    pub(super) fn buffered(&self) -> usize {
        self.buf.len()
    }

    /// Takes note of the brackets between elements; how many bytes until one begins.
    fn filler(&mut self) -> usize {
        let mut at = 0;
        while let Some(&byte) = self.buf.get(at) {
            match byte {
                b'[' if !self.inside => self.inside = true,
                b']' if self.inside => self.inside = false,
                b',' if self.inside => {}
                byte if is_space(byte) => {}
                _ => break,
            }
            at += 1;
        }
        at
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.scanned = 0;
        self.buf.split_to(len).freeze()
    }
}

impl Element {
    fn new(first: u8, inside: bool) -> Self {
        let shape = match first {
            b'{' => Shape::Closed { depth: 0, string: false, escaped: false },
            b'[' | b'"' if inside => Shape::Closed { depth: 0, string: false, escaped: false },
            _ if inside => Shape::Open,
            _ => Shape::Rest,
        };
        Element { shape, oversize: false }
    }
}

impl Shape {
    /// Where the element ends, if it does in these next bytes of it.
    fn end_in(&mut self, bytes: &[u8]) -> Option<usize> {
        let Shape::Closed { depth, string, escaped } = self else {
            let over = |byte: &u8| matches!(byte, b',' | b']') || is_space(*byte);
            return if matches!(self, Shape::Open) { bytes.iter().position(over) } else { None };
        };
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if *string {
                if std::mem::take(escaped) {
                    at += 1;
                    continue;
                }
                at += memchr2(b'"', b'\\', &bytes[at..])? + 1;
                if bytes[at - 1] == b'\\' {
                    *escaped = true;
                    continue;
                }
                *string = false;
            } else {
                at += 1;
                match byte {
                    b'"' => *string = true,
                    b'{' | b'[' => *depth += 1,
                    b'}' | b']' => *depth = depth.saturating_sub(1),
                    _ => continue,
                }
            }
            if *depth == 0 && !*string {
                return Some(at);
            }
        }
        None
    }
}

fn event(raw: Bytes) -> Frame {
    // Only text outside an array can have space behind it.
    let data = text(raw.slice_ref(raw.trim_ascii_end()));
    Frame::Event { raw, event: Event { name: None, data, id: None } }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
