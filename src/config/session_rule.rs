//! Where a session's name is found. Pure values: who applies them is `proxy::identity`.

use http::HeaderName;

use super::route::{check_path, header_name, json_pointer, parameter_name, segments_named};

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
    /// `answer-json:/pointer` into an answer that is JSON, where another request streams.
    AnswerJson(String),
    /// `event-json:/pointer` into the data of the answer's first events.
    EventJson(String),
}

impl SessionRule {
    /// Reads `KIND:WHERE`. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "`header:NAME`, `query:NAME`, `cookie:NAME`, `path:/…/{session}`, `json:/pointer`, `response-header:NAME`, `answer-json:/pointer` or `event-json:/pointer`";
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
                if segments_named(place, "session") != 1 {
                    return Err(format!(
                        "`{place}` needs one segment `{{session}}`, such as `/threads/{{session}}/runs`"
                    ));
                }
                Ok(SessionRule::Path(place.into()))
            }
            "answer-json" => Ok(SessionRule::AnswerJson(json_pointer(place)?)),
            "event-json" => Ok(SessionRule::EventJson(json_pointer(place)?)),
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
            SessionRule::AnswerJson(pointer) => write!(f, "answer-json:{pointer}"),
            SessionRule::EventJson(pointer) => write!(f, "event-json:{pointer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_rule_is_read_and_shown_alike() {
        for text in [
            "header:x-thread",
            "query:id",
            "cookie:sid",
            "path:/t/{session}/*",
            "json:/a/0/b~1c",
            "response-header:x-id",
            "answer-json:/streamId",
            "event-json:/conversation_id",
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
            "body:/x",
            "path:/{session}/{session}",
        ] {
            assert!(SessionRule::parse(text).is_err(), "{text}");
        }
    }
}
