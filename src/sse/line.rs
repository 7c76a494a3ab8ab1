//! One line of an event stream: its end, its field, its text.

use bytes::Bytes;
use bytestring::ByteString;
use memchr::memchr2;

/// Where the first line end in `bytes` is: the index of its CR or LF.
pub(super) fn find_end(bytes: &[u8]) -> Option<usize> {
    memchr2(b'\n', b'\r', bytes)
}

/// Where the next line begins after a line end at `end`, and whether an LF that comes next would
/// still belong to this line end (its CR is the last byte we have).
pub(super) fn after_end(bytes: &[u8], end: usize) -> (usize, bool) {
    match (bytes[end], bytes.get(end + 1)) {
        (b'\r', Some(b'\n')) => (end + 2, false),
        (b'\r', None) => (end + 1, true),
        _ => (end + 1, false),
    }
}

/// Name and value of a line that is neither blank nor a comment. The value is always the end of
/// the line. Names are compared as bytes: an invalid sequence can never be equal to a known name.
pub(super) fn field(line: &[u8]) -> (&[u8], &[u8]) {
    // The names that mean something have at most five bytes; a colon further on only makes an
    // unknown name shorter.
    const LONGEST: usize = b"event".len();
    let head = &line[..line.len().min(LONGEST + 1)];
    match head.iter().position(|&b| b == b':') {
        Some(colon) => {
            let value = &line[colon + 1..];
            (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
        }
        None => (line, b""),
    }
}

/// Whether a line, or the beginning of one, is a `data` field.
pub(super) fn is_data(line: &[u8]) -> bool {
    field(line).0 == b"data"
}

/// The text of a value, invalid sequences replaced by U+FFFD (Encoding Standard, "UTF-8 decode
/// without BOM"). Decoding value by value equals decoding the stream: what delimits a value is
/// ASCII, and an ASCII byte ends any unfinished sequence. A view of `bytes` where those are valid.
pub(crate) fn text(bytes: Bytes) -> ByteString {
    ByteString::try_from(bytes.clone()).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
}

/// The `data` values of a block, joined by LF.
pub(super) fn joined_data(block: &[u8]) -> ByteString {
    let mut joined: Option<String> = None;
    // Splits a CRLF twice: the empty line between is no field.
    for line in block.split(|b| matches!(b, b'\n' | b'\r')) {
        let (b"data", value) = field(line) else { continue };
        let value = String::from_utf8_lossy(value);
        match &mut joined {
            None => joined = Some(value.into_owned()),
            Some(joined) => {
                joined.push('\n');
                joined.push_str(&value);
            }
        }
    }
    joined.unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_space_after_the_colon_is_framing() {
        assert_eq!(field(b"data: x"), (&b"data"[..], &b"x"[..]));
        assert_eq!(field(b"data:  x"), (&b"data"[..], &b" x"[..]));
        assert_eq!(field(b"data:\tx"), (&b"data"[..], &b"\tx"[..]));
        assert_eq!(field(b"data:"), (&b"data"[..], &b""[..]));
        assert_eq!(field(b"data"), (&b"data"[..], &b""[..]));
        assert_eq!(field(b"event: a:b"), (&b"event"[..], &b"a:b"[..]));
    }

    #[test]
    fn an_unknown_name_is_never_taken_for_a_known_one() {
        for line in [&b"data : x"[..], b"datas:x", b"a longer name: x", b"Data:x", b"\xffdata:x", b" data:x"] {
            assert!(!matches!(field(line).0, b"data" | b"event" | b"id" | b"retry"), "{line:?}");
        }
    }

    #[test]
    fn valid_text_is_a_view_and_not_a_copy() {
        let bytes = Bytes::from_static("a…".as_bytes());
        assert_eq!(text(bytes.clone()).as_ptr(), bytes.as_ptr());
    }
}
