//! Which requests a rule speaks of, and where a session's name is found in them. Pure matching:
//! nothing here reads a request's body or decodes a path, segments are compared as they were sent.

use http::{HeaderName, Method};

/// `METHOD /path`: `*` for any method; in the path `{name}` stands for one segment, a final `/*`
/// for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePattern {
    /// `None`: any method.
    pub method: Option<Method>,
    /// The path pattern as written.
    pub path: String,
}

impl RoutePattern {
    /// Reads `POST /api/chat`. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((method, path)) = text.split_once(' ') else {
            return Err(format!(
                "`{text}` is not a route; write `METHOD /path`, such as `POST /api/chat` or `* /api/*`"
            ));
        };
        let path = path.trim();
        check_path(path)?;
        if method == "*" {
            return Ok(RoutePattern { method: None, path: path.into() });
        }
        if !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return Err(format!("`{method}` is not a method; write it in capitals (`POST`), or `*` for any"));
        }
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{text}` names no method"))?;
        Ok(RoutePattern { method: Some(method), path: path.into() })
    }

    /// Whether a request is meant. `path` is the request's path as it was sent, without a query.
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|m| m == method) && walk(&self.path, path, None).is_some()
    }
}

impl std::fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method.as_ref().map_or("*", Method::as_str), self.path)
    }
}

/// Where a session's name is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionRule {
    /// `header:NAME` of the request.
    Header(HeaderName),
    /// `query:NAME`.
    Query(String),
    /// `cookie:NAME`.
    Cookie(String),
    /// `path:/pattern/{session}/…`.
    Path(String),
    /// `json:/pointer` into the request body (RFC 6901).
    Json(String),
    /// `response-header:NAME`.
    ResponseHeader(HeaderName),
}

impl SessionRule {
    /// Reads `KIND:WHERE`. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "`header:NAME`, `query:NAME`, `cookie:NAME`, `path:/…/{session}`, `json:/pointer` or `response-header:NAME`";
        let Some((kind, place)) = text.split_once(':') else {
            return Err(format!("`{text}` is not a session rule; write {FORMS}"));
        };
        match kind {
            "header" => Ok(SessionRule::Header(header_name(place)?)),
            "response-header" => Ok(SessionRule::ResponseHeader(header_name(place)?)),
            "query" => Ok(SessionRule::Query(parameter_name(kind, place)?)),
            "cookie" => Ok(SessionRule::Cookie(parameter_name(kind, place)?)),
            "json" => Ok(SessionRule::Json(json_pointer(place)?)),
            "path" => {
                check_path(place)?;
                if place.split('/').filter(|segment| *segment == "{session}").count() != 1 {
                    return Err(format!(
                        "`{place}` needs one segment `{{session}}`, such as `/threads/{{session}}/runs`"
                    ));
                }
                Ok(SessionRule::Path(place.into()))
            }
            "event-json" => Err("`event-json:` comes with a later version".into()),
            _ => Err(format!("`{kind}:` is not a session rule; write {FORMS}")),
        }
    }
}

impl std::fmt::Display for SessionRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SessionRule::Header(name) => write!(f, "header:{name}"),
            SessionRule::Query(name) => write!(f, "query:{name}"),
            SessionRule::Cookie(name) => write!(f, "cookie:{name}"),
            SessionRule::Path(pattern) => write!(f, "path:{pattern}"),
            SessionRule::Json(pointer) => write!(f, "json:{pointer}"),
            SessionRule::ResponseHeader(name) => write!(f, "response-header:{name}"),
        }
    }
}

/// What stands in `path` at the segment `{name}` of `pattern`, still percent-encoded; `None` where
/// the pattern does not match or has no such segment.
pub fn path_segment<'p>(pattern: &str, path: &'p str, name: &str) -> Option<&'p str> {
    walk(pattern, path, Some(name))?
}

/// A JSON pointer by the syntax of RFC 6901 section 3; it must name something (not the whole body).
pub(super) fn json_pointer(text: &str) -> Result<String, String> {
    let mut escapes = text.split('~').skip(1);
    if text.starts_with('/') && escapes.all(|rest| rest.starts_with(['0', '1'])) {
        return Ok(text.into());
    }
    Err(format!("`{text}` is not a JSON pointer; write `/key/0/key` (`~1` for a `/` in a key, `~0` for a `~`)"))
}

/// Compares segment by segment. `Some`: the pattern matches; inside, what stands at `{wanted}`.
fn walk<'p>(pattern: &str, path: &'p str, wanted: Option<&str>) -> Option<Option<&'p str>> {
    let mut found = None;
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        // Only a final `*` gets past `check_path`; it takes the rest, even an empty one.
        if expected == "*" {
            return segments.next().map(|_| found);
        }
        let segment = segments.next()?;
        match variable(expected) {
            Some(_) if segment.is_empty() => return None,
            Some(name) if Some(name) == wanted => found = Some(segment),
            Some(_) => {}
            None if expected == segment => {}
            None => return None,
        }
    }
    segments.next().is_none().then_some(found)
}

/// `name` of a segment `{name}`.
fn variable(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.contains(['?', '#']) || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("`{path}` is not a path; it begins with `/` and has neither `?`, `#` nor spaces"));
    }
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if segment.contains('*') && !(segment == "*" && last) {
            return Err(format!("`*` stands only as the last segment (`/api/*`), not as in `{path}`"));
        }
        let named = variable(segment)
            .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        if segment.contains(['{', '}']) && !named {
            return Err(format!("`{segment}` in `{path}`: `{{name}}` stands for a whole segment"));
        }
    }
    Ok(())
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    text.parse().map_err(|_| format!("`{text}` is not the name of a header"))
}

pub(super) fn parameter_name(kind: &str, text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"=;,&".contains(&b)) {
        return Ok(text.into());
    }
    Err(format!("`{text}` cannot be the NAME in `{kind}:NAME`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_matches(pattern: &str, method: Method, path: &str, expected: bool) {
        let pattern = RoutePattern::parse(pattern).unwrap();
        assert_eq!(pattern.matches(&method, path), expected, "{method} {path} against {pattern}");
    }

    #[test]
    fn a_route_matches_its_method_and_path_and_nothing_else() {
        assert_matches("POST /api/chat", Method::POST, "/api/chat", true);
        assert_matches("POST /api/chat", Method::GET, "/api/chat", false);
        assert_matches("POST /api/chat", Method::POST, "/api/chat/", false);
        assert_matches("POST /api/chat", Method::POST, "/api", false);
        assert_matches("* /api/chat", Method::PATCH, "/api/chat", true);
        assert_matches("GET /", Method::GET, "/", true);
    }

    #[test]
    fn a_name_stands_for_exactly_one_segment() {
        assert_matches("POST /t/{id}/runs", Method::POST, "/t/7/runs", true);
        assert_matches("POST /t/{id}/runs", Method::POST, "/t//runs", false);
        assert_matches("POST /t/{id}/runs", Method::POST, "/t/7/8/runs", false);
    }

    #[test]
    fn a_final_star_stands_for_the_rest() {
        assert_matches("* /api/*", Method::POST, "/api/a/b", true);
        assert_matches("* /api/*", Method::POST, "/api/", true);
        assert_matches("* /api/*", Method::POST, "/api", false);
        assert_matches("* /api/*", Method::POST, "/apix/a", false);
        assert_matches("* /*", Method::POST, "/", true);
    }

    #[test]
    fn a_route_that_means_nothing_is_refused() {
        for text in [
            "",
            "/api/chat",
            "post /api",
            "POST api",
            "POST /a?b",
            "POST /a*",
            "POST /*/b",
            "POST /a{b}",
            "POST /{}",
            "POST /{a/b}",
            "P@ST /a",
            " /a",
            "POST /a b",
        ] {
            assert!(RoutePattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_segment_is_found_by_its_name() {
        assert_eq!(path_segment("/t/{session}/runs/{run}", "/t/a%2Fb/runs/9", "session"), Some("a%2Fb"));
        assert_eq!(path_segment("/t/{session}/*", "/t/7/x/y", "session"), Some("7"));
        assert_eq!(path_segment("/t/{session}", "/t/7/x", "session"), None);
        assert_eq!(path_segment("/t/{other}", "/t/7", "session"), None);
    }

    #[test]
    fn every_session_rule_is_read_and_shown_alike() {
        for text in [
            "header:x-thread",
            "query:id",
            "cookie:sid",
            "path:/t/{session}/*",
            "json:/a/0/b~1c",
            "response-header:x-id",
        ] {
            assert_eq!(SessionRule::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_session_rule_that_cannot_work_is_refused() {
        for text in [
            "",
            "thread_id",
            "header:",
            "header:a b",
            "query:",
            "cookie:a=b",
            "path:/t",
            "path:t/{session}",
            "json:a",
            "json:",
            "json:/a~2",
            "json:/a~",
            "event-json:/id",
            "body:/x",
            "path:/{session}/{session}",
        ] {
            assert!(SessionRule::parse(text).is_err(), "{text}");
        }
    }
}
