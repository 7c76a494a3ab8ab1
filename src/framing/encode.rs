//! Writing events in a framing, for replays.

use bytes::{BufMut, BytesMut};

use super::Framing;
use super::lines::is_code;
use crate::sse;

/// Writes one stream. A [`Decoder`](super::Decoder) of the same framing reads back what was written.
#[derive(Debug)]
pub struct Encoder {
    framing: Framing,
    begun: bool,
}

impl Encoder {
    /// An encoder of a stream that begins.
    pub fn new(framing: Framing) -> Self {
        Encoder { framing, begun: false }
    }

    /// Appends one event. Only event streams have ids, and only they and prefixed lines have names; what the
    /// framing cannot say is left out.
    pub fn write(&mut self, name: Option<&str>, data: &str, id: Option<&str>, out: &mut BytesMut) {
        match self.framing {
            Framing::Sse => sse::encode(name, data, id, out),
            Framing::Lines => line(data, out),
            Framing::Prefixed => {
                if let Some(code) = name.filter(|name| is_code(name.as_bytes())) {
                    out.put_slice(code.as_bytes());
                    out.put_u8(b':');
                }
                line(data, out);
            }
            Framing::JsonArray => {
                out.put_slice(if self.begun { b",\n" } else { b"[" });
                out.put_slice(data.as_bytes());
            }
        }
        self.begun = true;
    }

    /// Appends what ends a stream that is complete. One that is not has no end.
    pub fn end(&mut self, out: &mut BytesMut) {
        if self.framing == Framing::JsonArray {
            out.put_slice(if self.begun { b"]" } else { b"[]" });
        }
    }
}

/// One line. Between the tokens of JSON, a line end is a space like any other.
fn line(data: &str, out: &mut BytesMut) {
    out.reserve(data.len() + 1);
    for (n, piece) in data.split(['\n', '\r']).enumerate() {
        if n > 0 {
            out.put_u8(b' ');
        }
        out.put_slice(piece.as_bytes());
    }
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(framing: Framing, events: &[(Option<&str>, &str)]) -> String {
        let (mut encoder, mut out) = (Encoder::new(framing), BytesMut::new());
        for (name, data) in events {
            encoder.write(*name, data, Some("7"), &mut out);
        }
        encoder.end(&mut out);
        String::from_utf8(out.to_vec()).expect("UTF-8 was written")
    }

    #[test]
    fn each_framing_is_written_as_its_backends_write_it() {
        let events = [(Some("0"), "\"a\""), (None, "{\"b\":\n1}")];
        assert_eq!(written(Framing::Sse, &events[..1]), "event: 0\ndata: \"a\"\nid: 7\n\n");
        assert_eq!(written(Framing::Lines, &events), "\"a\"\n{\"b\": 1}\n");
        assert_eq!(written(Framing::Prefixed, &events), "0:\"a\"\n{\"b\": 1}\n");
        assert_eq!(written(Framing::JsonArray, &events), "[\"a\",\n{\"b\":\n1}]");
    }

    #[test]
    fn an_array_without_elements_is_an_array() {
        assert_eq!(written(Framing::JsonArray, &[]), "[]");
        assert_eq!(written(Framing::Lines, &[]), "");
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(written(Framing::Prefixed, &[(Some("0:1\n3"), "\"x\"")]), "\"x\"\n");
    }
}
