//! The one body type of requests to the upstream and of answers to the client. Must never buffer.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

/// A body in either direction: frames of data and trailers, pulled by whoever sends it on.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body broke off. Whoever sends a body that yields this aborts the message: it never ends
/// it politely.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body with nothing in it.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is already all here.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
