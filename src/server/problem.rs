//! Errors as HTTP answers: RFC 9457 problem documents with a stable `code`. Never carries a
//! payload, a credential or a backtrace.

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use super::body::{self, Body};
use crate::wire::Code;

/// An error that a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong and what to do, for people.
    pub detail: String,
    closes: bool,
    members: Vec<(&'static str, serde_json::Value)>,
}

impl Problem {
    /// A problem with `detail`, one sentence that says what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem { code, detail: detail.into(), closes: false, members: Vec::new() }
    }

    /// The store that keeps the sessions does not answer; `error` says why, without its address.
    pub fn store_unavailable(error: impl std::fmt::Display) -> Self {
        Problem::new(Code::StoreUnavailable, error.to_string())
    }

    /// One more member of the document (RFC 9457 §3.2).
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// Close the HTTP/1 connection after this answer: what follows on it cannot be trusted.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        let mut document = serde_json::json!({
            "type": format!("urn:sidestream:error:{}", self.code),
            "code": self.code.as_str(),
            "title": self.code.title(),
            "status": self.code.status(),
            "detail": self.detail,
            "retryable": self.code.retryable(),
        });
        for (name, value) in self.members {
            document[name] = value;
        }
        let mut response = Response::new(body::full(document.to_string()));
        *response.status_mut() = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // By which the router tells an answer of ours from one of the upstream.
        response.extensions_mut().insert(self.code);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_problem_says_what_happened_to_programs_and_to_people() {
        let problem = Problem::new(Code::UpstreamUnreachable, "cannot reach it; is the agent running?").closing();
        let response = problem.into_response();
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[CONNECTION], "close");
        let body = response.into_body().collect().await.expect("a full body").to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(document["code"], "upstream_unreachable");
        assert_eq!(document["status"], 502);
        assert_eq!(document["retryable"], true);
        assert_eq!(document["detail"], "cannot reach it; is the agent running?");
    }
}
