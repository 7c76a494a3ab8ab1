//! The stable names of everything that can go wrong, over HTTP and over WebSocket. A program may
//! match on them; the sentences beside them may change.

use std::fmt;

/// The `code` of a problem document or of an `error` message. Listed in `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is not HTTP that can be forwarded safely, or a field of it makes no sense.
    BadRequest,
    /// A client message is not one JSON object of a known type.
    BadMessage,
    /// A client message's `type` is not one of this version.
    UnknownType,
    /// The text is not an offset, or it is not one of this session.
    BadOffset,
    /// No such session, run or page.
    NotFound,
    /// Not allowed for this caller.
    Forbidden,
    /// A newer epoch of this producer writes now.
    Fenced,
    /// The resource exists but not with this method.
    MethodNotAllowed,
    /// What was asked for is no longer in the log: trimmed, rolled back or expired.
    Gone,
    /// The request contradicts what is there already.
    Conflict,
    /// The route has a run already, and the message was not to wait.
    Busy,
    /// A message or body is larger than its limit.
    TooLarge,
    /// Too many connections, sessions or requests.
    TooMany,
    /// Well-formed, but this server does not do it.
    NotSupported,
    /// A fault of ours.
    Internal,
    /// No connection to the upstream could be made; nothing was sent.
    UpstreamUnreachable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream closed the connection before its answer was complete.
    UpstreamReset,
    /// What the upstream sent is not a valid answer.
    UpstreamInvalid,
    /// The store that keeps the sessions does not answer.
    StoreUnavailable,
    /// This instance is shutting down; another one will answer.
    Draining,
    /// What was asked for is on its way, and was not confirmed in time.
    NotConfirmed,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Code; 22] = [
        Code::BadRequest,
        Code::BadMessage,
        Code::UnknownType,
        Code::BadOffset,
        Code::Forbidden,
        Code::Fenced,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::Conflict,
        Code::Busy,
        Code::Gone,
        Code::TooLarge,
        Code::TooMany,
        Code::NotSupported,
        Code::Internal,
        Code::UpstreamUnreachable,
        Code::UpstreamTimeout,
        Code::UpstreamReset,
        Code::UpstreamInvalid,
        Code::StoreUnavailable,
        Code::Draining,
        Code::NotConfirmed,
    ];

    /// The name on the wire; never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::BadMessage => "bad_message",
            Code::UnknownType => "unknown_type",
            Code::BadOffset => "bad_offset",
            Code::Forbidden => "forbidden",
            Code::Fenced => "fenced",
            Code::NotFound => "not_found",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::Conflict => "conflict",
            Code::Busy => "busy",
            Code::Gone => "gone",
            Code::TooLarge => "too_large",
            Code::TooMany => "too_many",
            Code::NotSupported => "not_supported",
            Code::Internal => "internal",
            Code::UpstreamUnreachable => "upstream_unreachable",
            Code::UpstreamTimeout => "upstream_timeout",
            Code::UpstreamReset => "upstream_reset",
            Code::UpstreamInvalid => "upstream_invalid",
            Code::StoreUnavailable => "store_unavailable",
            Code::Draining => "draining",
            Code::NotConfirmed => "not_confirmed",
        }
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Code::BadRequest | Code::BadMessage | Code::UnknownType | Code::BadOffset => 400,
            Code::Forbidden | Code::Fenced => 403,
            Code::Conflict | Code::Busy => 409,
            Code::NotFound => 404,
            Code::MethodNotAllowed => 405,
            Code::Gone => 410,
            Code::TooLarge => 413,
            Code::TooMany => 429,
            Code::Internal => 500,
            Code::NotSupported => 501,
            Code::UpstreamUnreachable | Code::UpstreamReset | Code::UpstreamInvalid => 502,
            Code::StoreUnavailable | Code::Draining => 503,
            Code::UpstreamTimeout | Code::NotConfirmed => 504,
        }
    }

    /// What it is, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Code::BadRequest => "Bad request",
            Code::BadMessage => "Bad message",
            Code::UnknownType => "Unknown message type",
            Code::BadOffset => "Bad offset",
            Code::Forbidden => "Forbidden",
            Code::Fenced => "Fenced",
            Code::NotFound => "Not found",
            Code::MethodNotAllowed => "Method not allowed",
            Code::Conflict => "Conflict",
            Code::Busy => "Busy",
            Code::Gone => "Gone",
            Code::TooLarge => "Too large",
            Code::TooMany => "Too many",
            Code::NotSupported => "Not supported",
            Code::Internal => "Internal error",
            Code::UpstreamUnreachable => "Upstream unreachable",
            Code::UpstreamTimeout => "Upstream timeout",
            Code::UpstreamReset => "Upstream connection lost",
            Code::UpstreamInvalid => "Upstream answer invalid",
            Code::StoreUnavailable => "Store unavailable",
            Code::Draining => "Shutting down",
            Code::NotConfirmed => "Not confirmed yet",
        }
    }

    /// Whether the same request may succeed a little later **and** sending it again is harmless:
    /// nothing was begun, or it is one that may be repeated. An upstream that broke off or was too slow may have done its work, so
    /// those are not retryable in this sense.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Code::TooMany
                | Code::Busy
                | Code::UpstreamUnreachable
                | Code::StoreUnavailable
                | Code::Draining
                | Code::NotConfirmed
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_code_with_its_status_and_whether_to_retry() {
        let page = include_str!("../../docs/errors.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        for code in Code::ALL {
            let retry = if code.retryable() { "yes" } else { "no" };
            let row = format!("| `{code}` | {} | {retry} |", code.status());
            assert!(rows.iter().any(|line| line.starts_with(&row)), "docs/errors.md has no row {row}");
        }
        assert_eq!(rows.len(), Code::ALL.len(), "docs/errors.md lists a code that does not exist");
    }

    #[test]
    fn no_two_codes_share_a_name() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
