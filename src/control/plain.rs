//! The upstream's answer as a run reads it: without its content coding, and how its end is known.

use http::response::Parts;
use http_body_util::BodyExt;

use crate::proxy::{Codings, DecodeError, Decoded, UpstreamBody, is_close_delimited};
use crate::run::{BrokenOff, Ending};
use crate::server::{Body, BodyError};

/// The body without its codings. One that is not what its head says breaks off, and its run fails with
/// `content_coding`.
pub fn plain(body: UpstreamBody, codings: &Codings) -> Body {
    if codings.is_empty() {
        return body.map_err(BodyError::from).boxed_unsync();
    }
    let broken = |error| match error {
        DecodeError::Body(error) => BodyError::from(error),
        DecodeError::Garbage(error) => {
            // The end of its run says so to operators, with the run's names.
            tracing::debug!(%error, "the upstream's answer is not encoded as its Content-Encoding says");
            BrokenOff("content_coding").into()
        }
    };
    Decoded::new(codings, body).map_err(broken).boxed_unsync()
}

/// How the end of an answer's body is known, by its head as it came.
pub fn ending(head: &Parts) -> Ending {
    if is_close_delimited(head) { Ending::Close } else { Ending::Delimited }
}
