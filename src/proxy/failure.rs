//! What can go wrong between us and the upstream, and the words for it.

use std::io;
use std::time::Duration;

use crate::wire::Code;

/// Why there is no answer, or not all of it. Always the upstream's or the network's doing, except
/// [`UpstreamError::Request`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection; nothing was sent, so the request may be sent again.
    #[error("cannot reach upstream {url}: {reason}; is the agent running?")]
    Unreachable {
        /// The upstream as configured.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// No response head in time. The upstream may have begun.
    #[error("upstream {url} has not begun to answer within {} ms (upstream.first_byte_timeout)", after.as_millis())]
    HeadTimeout {
        /// The upstream as configured.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// The response body stood still for too long.
    #[error("upstream {url} has sent nothing for {} ms (upstream.idle_timeout)", after.as_millis())]
    IdleTimeout {
        /// The upstream as configured.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// The connection ended before the answer did. The upstream may have begun.
    #[error("upstream {url} closed the connection before its answer was complete: {reason}")]
    Reset {
        /// The upstream as configured.
        url: String,
        /// What was seen.
        reason: String,
    },
    /// The answer is not HTTP, or not an answer to this request.
    #[error("upstream {url} sent an invalid answer: {reason}; does it speak HTTP on this port?")]
    Invalid {
        /// The upstream as configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The body of the request broke off: the client went away.
    #[error("the request's body broke off: {0}")]
    Request(String),
}

impl UpstreamError {
    /// The name that clients are told.
    pub fn code(&self) -> Code {
        match self {
            UpstreamError::Unreachable { .. } => Code::UpstreamUnreachable,
            UpstreamError::HeadTimeout { .. } | UpstreamError::IdleTimeout { .. } => Code::UpstreamTimeout,
            UpstreamError::Reset { .. } => Code::UpstreamReset,
            UpstreamError::Invalid { .. } => Code::UpstreamInvalid,
            UpstreamError::Request(_) => Code::BadRequest,
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `upstream.url` is not an upstream.
    #[error("upstream.url {url}: {reason}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// TLS cannot be set up, most often because the system has no root certificates.
    #[error("cannot set up TLS for {url}: {reason}; are root certificates installed (or SSL_CERT_FILE set)?")]
    Tls {
        /// As configured.
        url: String,
        /// What rustls says.
        reason: String,
    },
}

/// The innermost cause: the outer ones say "error sending request".
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(error) if error.raw_os_error().is_some() => error.kind().to_string(),
        _ => innermost.to_string(),
    }
}
