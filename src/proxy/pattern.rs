//! Route patterns: `METHOD /path` with `{name}` for one segment and a final `/*` for the rest.
//! Compares the path as it was sent: no decoding, no normalising, so that nothing matches that the
//! upstream would read differently.

use http::Method;

use crate::config::RoutePattern;

/// Whether a request is one of the route's. `path` is without the query.
pub fn matches(route: &RoutePattern, method: &Method, path: &str) -> bool {
    route.method.as_ref().is_none_or(|wanted| wanted == method) && capture(&route.path, path, "").is_some()
}

/// Matches `path` against `pattern`. The value is the segment at `{name}`, or empty where the
/// pattern has no such segment; `None`: no match. `{…}` never stands for an empty segment.
pub fn capture<'p>(pattern: &str, path: &'p str, name: &str) -> Option<&'p str> {
    let (pattern, open) = match pattern.strip_suffix("/*") {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut found = "";
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        match wanted.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(_) if segment.is_empty() => return None,
            Some(variable) if variable == name => found = segment,
            Some(_) => {}
            None if wanted == segment => {}
            None => return None,
        }
    }
    // `/*` stands for at least the slash.
    if segments.next().is_some() == open { Some(found) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_segments() {
        for (pattern, path, expected) in [
            ("/api/chat", "/api/chat", true),
            ("/api/chat", "/api/chat/", false),
            ("/api/chat", "/api/chats", false),
            ("/api/{id}/stream", "/api/7/stream", true),
            ("/api/{id}/stream", "/api//stream", false),
            ("/api/{id}/stream", "/api/7/8/stream", false),
            ("/api/*", "/api/", true),
            ("/api/*", "/api/a/b", true),
            ("/api/*", "/api", false),
            ("/api/*", "/apix/a", false),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/*", "*", false),
        ] {
            let route = RoutePattern { method: None, path: pattern.into() };
            assert_eq!(matches(&route, &Method::GET, path), expected, "{pattern} {path}");
        }
        let route = RoutePattern { method: Some(Method::POST), path: "/*".into() };
        assert!(matches(&route, &Method::POST, "/a") && !matches(&route, &Method::GET, "/a"));
    }

    #[test]
    fn a_named_segment_is_captured_as_it_was_sent() {
        assert_eq!(capture("/t/{session}/runs/*", "/t/a%20b/runs/9", "session"), Some("a%20b"));
        assert_eq!(capture("/t/{other}", "/t/a", "session"), Some(""));
        assert_eq!(capture("/t/{session}", "/x/a", "session"), None);
    }
}
