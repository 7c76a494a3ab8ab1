//! Which requests a rule speaks of. Pure matching: nothing here reads a request's body or decodes a path,
//! segments are compared as they were sent.

use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_decode_str;

/// `METHOD /path`: `*` for any method; in the path `{name}` stands for one segment, or for the beginning of one
/// that ends with what follows (`{model}:stream`), a final `/*` for the rest.
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

    /// What stands in `path` at the segments that have a name, decoded; those that are no text are left out.
    pub fn segments(&self, path: &str) -> Vec<(String, String)> {
        let names = self.path.split('/').filter_map(|segment| Some(variable(segment)?.0));
        let value = |name: &str| percent_decode_str(path_segment(&self.path, path, name)?).decode_utf8().ok();
        names.filter_map(|name| Some((name.to_owned(), value(name)?.into_owned()))).collect()
    }

    /// Whether the path has a segment of this name.
    pub fn has(&self, name: &str) -> bool {
        segments_named(&self.path, name) > 0
    }

    /// Whether every request that `other` means is meant as well.
    pub(super) fn covers(&self, other: &RoutePattern) -> bool {
        if self.method.is_some() && self.method != other.method {
            return false;
        }
        let mut theirs = other.path.split('/');
        for ours in self.path.split('/') {
            let Some(segment) = theirs.next() else { return false };
            let covered = match (ours, variable(ours), variable(segment)) {
                ("*", ..) => return true,
                (_, Some((_, end)), Some((_, narrower))) => narrower.ends_with(end),
                (_, Some((_, end)), None) => {
                    segment != "*" && segment.strip_suffix(end).is_some_and(|value| !value.is_empty())
                }
                (_, None, _) => ours == segment,
            };
            if !covered {
                return false;
            }
        }
        theirs.next().is_none()
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

/// What a request's head must have for a route to be meant: `header:NAME`, or `header:NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    header: HeaderName,
    value: Option<String>,
}

impl Condition {
    /// Reads a condition. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(condition) = text.strip_prefix("header:") else {
            return Err(format!("`{text}` is not a condition; write `header:NAME` or `header:NAME=VALUE`"));
        };
        let (name, value) = match condition.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (condition, None),
        };
        Ok(Condition { header: header_name(name)?, value })
    }

    /// Whether a request with these headers is meant.
    pub fn holds(&self, headers: &HeaderMap) -> bool {
        let is = |value: &http::HeaderValue| self.value.as_ref().is_none_or(|wanted| value == wanted);
        headers.get_all(&self.header).iter().any(is)
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "header:{}", self.header)?;
        self.value.as_ref().map_or(Ok(()), |value| write!(f, "={value}"))
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

/// How many segments of `pattern` have this name.
pub(super) fn segments_named(pattern: &str, name: &str) -> usize {
    pattern.split('/').filter(|segment| variable(segment).is_some_and(|(known, _)| known == name)).count()
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
            Some((name, end)) => {
                let value = segment.strip_suffix(end).filter(|value| !value.is_empty())?;
                found = if Some(name) == wanted { Some(value) } else { found };
            }
            None if expected == segment => {}
            None => return None,
        }
    }
    segments.next().is_none().then_some(found)
}

/// The name of a segment `{name}`, and what follows it there.
fn variable(segment: &str) -> Option<(&str, &str)> {
    segment.strip_prefix('{')?.split_once('}')
}

pub(super) fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.contains(['?', '#']) || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("`{path}` is not a path; it begins with `/` and has neither `?`, `#` nor spaces"));
    }
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if segment.contains('*') && !(segment == "*" && last) {
            return Err(format!("`*` stands only as the last segment (`/api/*`), not as in `{path}`"));
        }
        let named = variable(segment).is_some_and(|(name, end)| {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            !name.is_empty() && plain && !end.contains(['{', '}'])
        });
        if segment.contains(['{', '}']) && !named {
            return Err(format!(
                "`{segment}` in `{path}`: `{{name}}` stands for a whole segment, or for its beginning"
            ));
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
    fn what_follows_a_name_ends_its_segment() {
        assert_matches("POST /models/{model}:stream", Method::POST, "/models/a-1:stream", true);
        assert_matches("POST /models/{model}:stream", Method::POST, "/models/a-1:count", false);
        assert_matches("POST /models/{model}:stream", Method::POST, "/models/:stream", false);
        assert_eq!(path_segment("/t/{session}:stream", "/t/7:stream", "session"), Some("7"));
    }

    #[test]
    fn the_segments_of_a_path_have_their_values() {
        let pattern = RoutePattern::parse("POST /t/{thread}/*").unwrap();
        assert_eq!(pattern.segments("/t/a%2Fb/runs"), [("thread".to_owned(), "a/b".to_owned())]);
        assert_eq!(pattern.segments("/other"), []);
    }

    #[test]
    fn a_condition_is_about_a_header_of_the_request() {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-v"), http::HeaderValue::from_static("2"))]);
        for (text, holds) in
            [("header:x-v", true), ("header:X-V=2", true), ("header:x-v=3", false), ("header:x", false)]
        {
            let condition = Condition::parse(text).unwrap();
            assert_eq!(condition.holds(&headers), holds, "{text}");
            assert_eq!(condition.to_string(), text.to_lowercase());
        }
        for text in ["", "x-v=2", "header:", "header:a b=1", "query:a=b"] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
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
            "POST /{a}b{c}",
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
}
