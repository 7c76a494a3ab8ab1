//! Writing one event in the canonical framing.

use bytes::{BufMut, BytesMut};

/// Appends one event to `out`: LF line ends; `event`, `data`, `id` in this order; one space after
/// the colon; one `data` line per line of the data; a blank line.
///
/// A [`Decoder`](super::Decoder) reads back what was written. Text that SSE cannot say is written
/// so that it can never become another field or event: a CR in `data` is a line end like LF, and
/// an `event` or `id` with a line end in it, or an `id` with a NUL, is left out.
pub fn encode(name: Option<&str>, data: &str, id: Option<&str>, out: &mut BytesMut) {
    let one_line = |text: &&str| !text.contains(['\n', '\r']);
    // One allocation for the common case of a single line of data.
    out.reserve(data.len() + name.map_or(0, str::len) + id.map_or(0, str::len) + "event: \ndata: \nid: \n\n".len());
    if let Some(name) = name.filter(one_line).filter(|name| !name.is_empty()) {
        write_line("event", name, out);
    }
    let mut rest = data;
    while let Some(end) = memchr::memchr2(b'\n', b'\r', rest.as_bytes()) {
        write_line("data", &rest[..end], out);
        let crlf = rest[end..].starts_with("\r\n");
        rest = &rest[end + if crlf { 2 } else { 1 }..];
    }
    write_line("data", rest, out);
    if let Some(id) = id.filter(one_line).filter(|id| !id.contains('\0')) {
        write_line("id", id, out);
    }
    out.put_u8(b'\n');
}

fn write_line(name: &str, value: &str, out: &mut BytesMut) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: Option<&str>, data: &str, id: Option<&str>) -> String {
        let mut out = BytesMut::new();
        encode(name, data, id, &mut out);
        String::from_utf8(out.to_vec()).expect("UTF-8 was written")
    }

    #[test]
    fn the_framing_is_canonical() {
        assert_eq!(written(None, "{}", None), "data: {}\n\n");
        assert_eq!(written(Some("token"), "a\n b\n", Some("7")), "event: token\ndata: a\ndata:  b\ndata: \nid: 7\n\n");
        assert_eq!(written(Some(""), "", Some("")), "data: \nid: \n\n");
    }

    #[test]
    fn text_with_line_ends_cannot_forge_a_field() {
        assert_eq!(written(Some("a\ndata: x"), "b\rid: 1\r\nc", Some("1\r\r")), "data: b\ndata: id: 1\ndata: c\n\n");
        assert_eq!(written(None, "x", Some("1\0")), "data: x\n\n");
    }
}
