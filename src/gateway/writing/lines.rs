//! Lines of JSON as they arrive, however they were cut. Sans-I/O.

use bytes::{Buf, BytesMut};

use super::event::{Labels, record};
use super::reading::Malformed;
use crate::run::Dropped;
use crate::session::{Kind, Record};

/// Reads newline-delimited events. Blank lines say nothing. Holds at most one line of the largest
/// size beside what was fed last.
#[derive(Debug)]
pub(super) struct Lines {
    labels: Labels,
    cap: usize,
    buf: BytesMut,
    /// Bytes before this index are known to hold no line end.
    scanned: usize,
    /// The beginning of a line above the cap.
    over: Option<Dropped>,
    /// The number of the current line, from 1.
    line: u64,
}

impl Lines {
    /// A reader of lines of at most `cap` bytes.
    pub(super) fn new(labels: Labels, cap: usize) -> Self {
        Lines { labels, cap, buf: BytesMut::new(), scanned: 0, over: None, line: 1 }
    }

    /// Adds what has arrived.
    pub(super) fn feed(&mut self, chunk: &[u8]) {
        self.buf.extend_from_slice(chunk);
    }

    /// The next event; `None`: feed more.
    pub(super) fn next(&mut self) -> Option<Result<Record, Malformed>> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.buf[self.scanned..]).map(|at| at + self.scanned) else {
                if self.buf.len() > self.cap || self.over.is_some() {
                    self.over.get_or_insert_default().add(&self.buf.split());
                }
                self.scanned = self.buf.len();
                return None;
            };
            let line = self.buf.split_to(end);
            self.buf.advance(1);
            self.scanned = 0;
            let read = self.read(&line);
            self.line += 1;
            if read.is_some() {
                return read;
            }
        }
    }

    /// The last event, whose line has no end.
    pub(super) fn finish(mut self) -> Option<Result<Record, Malformed>> {
        let line = self.buf.split();
        self.read(&line)
    }

    fn read(&mut self, line: &[u8]) -> Option<Result<Record, Malformed>> {
        if line.len() > self.cap || self.over.is_some() {
            let mut dropped = self.over.take().unwrap_or_default();
            dropped.add(line);
            return Some(Ok(self.labels.record(Kind::EventDropped, dropped.into_details().into())));
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return None;
        }
        Some(record(line, &self.labels).map_err(|detail| Malformed { line: self.line, detail }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cap: usize, pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new(Labels::default(), cap);
        let mut found = Vec::new();
        let text = |read: Result<Record, Malformed>| match read {
            Ok(record) if record.kind == Kind::EventDropped => "dropped".to_owned(),
            Ok(record) => record.data.to_string(),
            Err(malformed) => format!("line {}", malformed.line),
        };
        for piece in pieces {
            lines.feed(piece);
            found.extend(std::iter::from_fn(|| lines.next()).map(text));
        }
        found.extend(lines.finish().map(text));
        found
    }

    #[test]
    fn events_come_out_however_their_lines_were_cut() {
        let body = b"{\"data\":\"a\"}\n\r\n  \n{\"json\":[1]}\r\nnonsense\n{\"data\":\"last\"}";
        let expected = ["a", "[1]", "line 5", "last"];
        assert_eq!(read(100, &[body]), expected);
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(read(100, &bytes), expected);
    }

    #[test]
    fn a_line_above_the_cap_is_dropped_and_the_next_is_not() {
        let long = format!("{{\"data\":\"{}\"}}\n{{\"data\":\"b\"}}\n", "x".repeat(100));
        assert_eq!(read(50, &[long.as_bytes()]), ["dropped", "b"]);
        let bytes: Vec<&[u8]> = long.as_bytes().chunks(7).collect();
        assert_eq!(read(50, &bytes), ["dropped", "b"]);
        assert_eq!(read(50, &[long.trim_end().split('\n').next().unwrap().as_bytes()]), ["dropped"]);
    }

    #[test]
    fn what_a_dropped_line_leaves_behind_is_bounded() {
        let mut lines = Lines::new(Labels::default(), 10);
        for _ in 0..100 {
            lines.feed(&[b'x'; 64]);
            assert!(lines.next().is_none());
            assert!(lines.buf.len() <= 10);
        }
    }
}
