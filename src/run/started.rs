//! The details of a run's `started` entry: what a resumed answer needs to look like the first one.

use std::collections::BTreeMap;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// Response headers that a resumed or joined answer carries again. Never cookies, request ids or
/// anything that was meant for the first caller alone.
const REPLAYED: [&str; 5] =
    ["content-type", "content-language", "x-vercel-ai-ui-message-stream", "mcp-session-id", "x-accel-buffering"];

/// What is kept of the request and of the answer's head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The upstream's status.
    pub status: u16,
    /// The request's method.
    pub method: String,
    /// The request's path, without its query: that may hold credentials.
    pub path: String,
    /// Headers of the answer that belong to the stream, not to its first reader.
    pub headers: BTreeMap<String, String>,
}

impl Started {
    /// What to keep of an answer.
    pub fn new(method: &http::Method, path: &str, status: http::StatusCode, headers: &HeaderMap) -> Self {
        let kept = REPLAYED.iter().filter_map(|name| {
            let value = headers.get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        Started { status: status.as_u16(), method: method.to_string(), path: path.to_owned(), headers: kept.collect() }
    }

    /// The details as the entry's JSON.
    pub fn to_json(&self) -> String {
        // Strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the details of a `started` entry; what cannot be read is left at its default.
    pub fn parse(details: &str) -> Self {
        serde_json::from_str(details).unwrap_or_default()
    }

    /// Puts the kept headers into the head of a resumed answer.
    pub fn put_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/event-stream"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_answer_has_the_dialects_headers_and_none_of_the_first_callers() {
        let mut head = HeaderMap::new();
        head.insert("content-type", HeaderValue::from_static("text/event-stream; charset=utf-8"));
        head.insert("x-vercel-ai-ui-message-stream", HeaderValue::from_static("v1"));
        head.insert("set-cookie", HeaderValue::from_static("secret=1"));
        head.insert("x-request-id", HeaderValue::from_static("req-1"));
        let started = Started::new(&http::Method::POST, "/chat", http::StatusCode::OK, &head);
        let mut resumed = HeaderMap::new();
        Started::parse(&started.to_json()).put_headers(&mut resumed);
        assert_eq!(resumed.len(), 2);
        assert_eq!(resumed["content-type"], "text/event-stream; charset=utf-8");
    }
}
