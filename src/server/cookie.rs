//! One cookie of a request.

use http::HeaderMap;
use http::header::COOKIE;

/// The first cookie of this name, in any line. A pair whose value is not made of cookie octets
/// (RFC 6265 §4.1.1) is none.
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let octet = |b: &u8| matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
    headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|b| *b == b'=')?;
        let (key, value) = (&pair[..equals], &pair[equals + 1..]);
        let value = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
        (key == name.as_bytes() && value.iter().all(octet)).then(|| value.to_vec())
    })
}
