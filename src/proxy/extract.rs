//! Reads the value that a session rule names out of a request. Values are what the client sent,
//! as bytes: whether they may be an id is decided elsewhere.

use http::{HeaderMap, HeaderName, request};
use serde_json::value::RawValue;

use crate::config::{SessionRule, path_segment};
use crate::json_pointer;
use crate::server::cookie;

/// The value of a rule over a request; `None` where there is none or it is empty. A JSON rule finds
/// nothing without a body, a response-header rule never does.
pub(super) fn value(rule: &SessionRule, head: &request::Parts, body: Option<&[u8]>) -> Option<Vec<u8>> {
    let found = match rule {
        SessionRule::Header(name) => header(&head.headers, name),
        SessionRule::Query(name) => query(head.uri.query()?, name),
        SessionRule::Cookie(name) => cookie(&head.headers, name),
        SessionRule::Path(pattern) => {
            path_segment(pattern, head.uri.path(), "session").map(|segment| percent_decoded(segment, false))
        }
        SessionRule::Json(at) => json_pointer::find(body?, at).and_then(scalar),
        SessionRule::ResponseHeader(_) | SessionRule::AnswerJson(_) | SessionRule::EventJson(_) => None,
    };
    found.filter(|value| !value.is_empty())
}

/// The first line of a field.
pub(super) fn header(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    headers.get(name).map(|value| value.as_bytes().to_vec())
}

/// The first parameter of this name, decoded as forms are.
fn query(query: &str, name: &str) -> Option<Vec<u8>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(key, true) == name.as_bytes()).then(|| percent_decoded(value, true))
    })
}

/// The text of a JSON string, or a JSON number as it is written.
pub(super) fn scalar(value: &RawValue) -> Option<Vec<u8>> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(value.get()).ok().map(String::into_bytes),
        b'-' | b'0'..=b'9' => Some(value.get().as_bytes().to_vec()),
        _ => None,
    }
}

/// Undoes percent encoding; what is not a valid escape stays as it is.
pub(super) fn percent_decoded(text: &str, plus_is_space: bool) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).map(|d| d as u8);
    let (bytes, mut decoded, mut i) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(i) {
        i += 1;
        decoded.push(match (byte, digit(bytes.get(i)), digit(bytes.get(i + 1))) {
            (b'%', Some(high), Some(low)) => {
                i += 2;
                high << 4 | low
            }
            (b'+', ..) if plus_is_space => b' ',
            _ => byte,
        });
    }
    decoded
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::COOKIE;

    use super::*;

    fn extract(rule: SessionRule, request: http::request::Builder, body: Option<&str>) -> Option<String> {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        value(&rule, &head, body.map(str::as_bytes)).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    #[test]
    fn query_parameters_are_decoded_as_forms_are() {
        let get = |url: &str| extract(SessionRule::Query("thread id".into()), Request::get(url), None);
        assert_eq!(get("/?a=1&thread+id=x%2Fy+z&thread+id=2").as_deref(), Some("x/y z"));
        assert_eq!(get("/?thread%20id=100%").as_deref(), Some("100%"));
        assert_eq!(get("/?thread+id="), None);
        assert_eq!(get("/?thread+id"), None);
        assert_eq!(get("/"), None);
    }

    #[test]
    fn cookies_are_read_by_the_rules_of_cookies() {
        let get = |lines: &[&str]| {
            let request = lines.iter().fold(Request::get("/"), |request, line| request.header(COOKIE, *line));
            extract(SessionRule::Cookie("sid".into()), request, None)
        };
        assert_eq!(get(&["a=b; sid=42; sid=43"]).as_deref(), Some("42"));
        assert_eq!(get(&["a=b", "sid=\"quoted\""]).as_deref(), Some("quoted"));
        assert_eq!(get(&["sid=a=b"]).as_deref(), Some("a=b"));
        assert_eq!(get(&["xsid=1; SID=2; sid"]), None);
        assert_eq!(get(&["sid=a b"]), None);
        assert_eq!(get(&["sid=a,b; sid=c"]).as_deref(), Some("c"));
    }

    #[test]
    fn a_path_segment_is_decoded() {
        let rule = || SessionRule::Path("/threads/{session}/runs/*".into());
        assert_eq!(extract(rule(), Request::post("/threads/a%2Fb/runs/stream?q"), None).as_deref(), Some("a/b"));
        assert_eq!(extract(rule(), Request::post("/threads/a/stream"), None), None);
    }

    #[test]
    fn json_strings_and_numbers_are_values_and_nothing_else_is() {
        let get = |body| extract(SessionRule::Json("/id".into()), Request::post("/"), body);
        assert_eq!(get(Some(r#"{"id":"chat-\u0034\u0032"}"#)).as_deref(), Some("chat-42"));
        assert_eq!(get(Some(r#"{"id": 12345678901234567890123}"#)).as_deref(), Some("12345678901234567890123"));
        for none in [r#"{"id":null}"#, r#"{"id":true}"#, r#"{"id":{}}"#, r#"{"id":""}"#, "{}", "not json"] {
            assert_eq!(get(Some(none)), None, "{none}");
        }
        assert_eq!(get(None), None);
    }
}
