//! Which header fields belong to one hop, which are ours, and which travel on. Must never let a
//! field of one connection reach another.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The fields of one hop, whether or not `Connection` names them (RFC 9110 §7.6.1, §11.7).
/// `Trailer` is not among them: without it the trailers themselves could not travel on.
const HOP_BY_HOP: [HeaderName; 8] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];

/// What our own request fields begin with.
const OURS: &str = "sidestream-";

/// Removes the hop's own fields: the fixed list, and every name in **every** `Connection` line.
/// Keeps `TE: trailers`, which says that the client can take trailers (RFC 9110 §10.1.4).
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = has_token(headers, &TE, "trailers");
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes what a client must not be able to tell the upstream: our own fields, and fields that
/// are not `framing` or forwarding fields but become one where a backend (CGI, WSGI, PHP) turns
/// `_` and `-` into the same character.
pub(super) fn remove_ours_and_twins(headers: &mut HeaderMap) {
    let unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let plain = name.as_str().replace('_', "-");
            let twin = plain != name.as_str();
            plain.starts_with(OURS)
                || twin
                    && (plain.starts_with("x-forwarded-")
                        || plain == CONTENT_LENGTH.as_str()
                        || HOP_BY_HOP.iter().any(|field| field.as_str() == plain))
        })
        .cloned()
        .collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Joins cookie lines into one: HTTP/2 clients split them, HTTP/1.1 knows one line only
/// (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    let (Some(first), Some(_)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in headers.get_all(COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}

/// The comma-separated tokens of all lines of a field.
pub(super) fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

/// Whether one of a field's tokens is this one. Parameters (`;q=…`) do not count.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| {
        let token = token.split(';').next().unwrap_or(token);
        token.trim_matches([' ', '\t']).eq_ignore_ascii_case(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn every_name_in_every_connection_line_stays_on_its_hop() {
        let mut lines = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-One"),
            ("connection", " x-two ,,Keep-Alive"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("trailer", "X-Sum"),
        ] {
            lines.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut lines);
        assert_eq!(names(&lines), ["trailer", "x-three"]);
    }

    #[test]
    fn a_client_that_takes_trailers_still_says_so() {
        let mut lines = headers(&[("te", "deflate;q=0.5, Trailers"), ("connection", "te")]);
        remove_hop_by_hop(&mut lines);
        assert_eq!(lines[TE], "trailers");
    }

    #[test]
    fn our_own_fields_and_underscore_twins_do_not_reach_the_upstream() {
        let mut lines = headers(&[
            ("sidestream-session", "a"),
            ("sidestream_source", "a"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_proto", "https"),
            ("content_length", "3"),
            ("transfer_encoding", "chunked"),
            ("x_trace", "kept"),
            ("idempotency-key", "kept"),
        ]);
        remove_ours_and_twins(&mut lines);
        assert_eq!(names(&lines), ["idempotency-key", "x_trace"]);
    }

    #[test]
    fn split_cookies_become_one_line() {
        let mut lines = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            lines.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut lines);
        assert_eq!(lines.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
