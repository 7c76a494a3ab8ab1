//! The details of a run's `started` entry: what a resumed answer needs to look like the first one.

use std::collections::BTreeMap;

use http::header::{CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// Response headers that a resumed or joined answer carries again. Never cookies, request ids or
/// anything that was meant for the first caller alone.
const REPLAYED: [&str; 6] = [
    "content-type",
    "content-language",
    "x-vercel-ai-ui-message-stream",
    "x-vercel-ai-data-stream",
    "mcp-session-id",
    "x-accel-buffering",
];

/// What the upstream lets pages of other origins do with the answer; carried again only where the
/// same request is made again, and only for an origin that it names.
const CORS: [&str; 3] =
    ["access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"];

/// What is kept of the request and of the answer's head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The upstream's status; 0 where the run was open before it answered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub status: u16,
    /// The request's method.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// The request's path, without its query: that may hold credentials.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Headers of the answer that belong to the stream, not to its first reader.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Its headers about other origins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cors: BTreeMap<String, String>,
    /// The run ends once its callers have all left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_with_callers: bool,
    /// The run that has begun this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The name of its dialect, where its route or the answer's head says it; else its first events do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
}

impl Started {
    /// What to keep of an answer.
    pub fn new(method: &http::Method, path: &str, status: http::StatusCode, headers: &HeaderMap) -> Self {
        let kept = |names: &[&str]| {
            let value = |name: &&str| Some(((*name).to_owned(), headers.get(*name)?.to_str().ok()?.to_owned()));
            names.iter().filter_map(value).collect()
        };
        let (method, path) = (method.to_string(), path.to_owned());
        Started {
            status: status.as_u16(),
            method,
            path,
            headers: kept(&REPLAYED),
            cors: kept(&CORS),
            ends_with_callers: false,
            parent: None,
            dialect: None,
        }
    }

    /// The details as the entry's JSON.
    pub fn to_json(&self) -> String {
        // Strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What the upstream's answer said, for a run that was open before: the data of its `answered`
    /// status.
    pub fn answered(&self) -> serde_json::Value {
        let mut said = serde_json::json!({
            "code": "answered",
            "status": self.status,
            "headers": self.headers,
            "cors": self.cors,
        });
        if let Some(dialect) = &self.dialect {
            said["dialect"] = dialect.as_str().into();
        }
        said
    }

    /// Reads the data of a status entry; `None`: it is not an `answered`.
    pub fn of_answer(data: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(data).ok()?;
        if value["code"] != "answered" {
            return None;
        }
        serde_json::from_value(value).ok()
    }

    /// Reads the details of a `started` entry; what cannot be read is left at its default.
    pub fn parse(details: &str) -> Self {
        serde_json::from_str(details).unwrap_or_default()
    }

    /// Puts the kept headers into the head of a resumed answer.
    pub fn put_headers(&self, headers: &mut HeaderMap) {
        put(headers, &self.headers);
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/event-stream"));
    }

    /// Lets a page of `origin` read the answer, where the upstream let it.
    pub fn put_cors(&self, headers: &mut HeaderMap, origin: &HeaderValue) {
        let allowed = self.cors.get(CORS[0]).map(String::as_bytes);
        if allowed == Some(b"*") || allowed == Some(origin.as_bytes()) {
            put(headers, &self.cors);
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

fn is_zero(status: &u16) -> bool {
    *status == 0
}

fn put(headers: &mut HeaderMap, kept: &BTreeMap<String, String>) {
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
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

    #[test]
    fn a_resumed_answer_is_open_to_the_origins_that_the_upstream_named_and_to_no_others() {
        let mut head = HeaderMap::new();
        head.insert("access-control-allow-origin", HeaderValue::from_static("https://app.example"));
        head.insert("access-control-allow-credentials", HeaderValue::from_static("true"));
        let started = Started::new(&http::Method::POST, "/chat", http::StatusCode::OK, &head);
        let allowed = |origin| {
            let mut resumed = HeaderMap::new();
            Started::parse(&started.to_json()).put_cors(&mut resumed, &HeaderValue::from_static(origin));
            resumed.get("access-control-allow-origin").is_some()
        };
        assert!(allowed("https://app.example") && !allowed("https://other.example"));
    }
}
