//! Reads a request's body ahead, where a rule needs it, and hands the request on as if nobody had.
//! Must never hold more than its limit: above it what was read and the rest stream on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::Request;
use http::header::EXPECT;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::server::{Body, BodyError};

/// The request, its body still to be sent, and the body's bytes; `None` instead of them when it has
/// more than `limit`. A client that waits for `100 Continue` gets it here, since we are who reads,
/// and the upstream is not asked for another.
///
/// # Errors
/// The client went away before its body was complete.
pub async fn buffer(request: Request<Body>, limit: u64) -> Result<(Request<Body>, Option<Bytes>), BodyError> {
    let (mut head, mut body) = request.into_parts();
    let hint = body.size_hint();
    if hint.lower() > limit {
        return Ok((Request::from_parts(head, body), None));
    }
    head.headers.remove(EXPECT);
    let (mut read, mut frames, mut complete) = (0, VecDeque::new(), true);
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        frames.push_back(frame);
        if read > limit {
            complete = false;
            break;
        }
    }
    let whole = if complete { Some(joined(&mut frames)) } else { None };
    let rest = if complete { None } else { Some(body) };
    let replayed = Replayed { frames, rest, hint }.boxed_unsync();
    Ok((Request::from_parts(head, replayed), whole))
}

/// All data in one piece, which also becomes the only data frame: held once, not twice.
fn joined(frames: &mut VecDeque<Frame<Bytes>>) -> Bytes {
    let mut pieces = Vec::new();
    let mut trailers = None;
    for frame in frames.drain(..) {
        match frame.into_data() {
            Ok(data) => pieces.push(data),
            Err(other) => trailers = Some(other),
        }
    }
    let whole = if pieces.len() == 1 {
        pieces.swap_remove(0)
    } else {
        let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    };
    if !whole.is_empty() {
        frames.push_back(Frame::data(whole.clone()));
    }
    frames.extend(trailers);
    whole
}

/// What was read, then the rest.
struct Replayed {
    frames: VecDeque<Frame<Bytes>>,
    rest: Option<Body>,
    /// Of the body as it came, so that its framing stays: a length stays a length.
    hint: SizeHint,
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match (self.frames.pop_front(), &mut self.rest) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Some(rest)) => Pin::new(rest).poll_frame(cx),
            (None, None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn request(pieces: &[&'static str]) -> Request<Body> {
        let frames: Vec<_> = pieces.iter().map(|p| Ok(Frame::data(Bytes::from_static(p.as_bytes())))).collect();
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        Request::post("/").header(EXPECT, "100-continue").body(body).expect("a request")
    }

    async fn text(request: Request<Body>) -> Bytes {
        request.into_body().collect().await.expect("a body").to_bytes()
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_known_and_still_there() {
        let (request, whole) = buffer(request(&["{\"a\"", ":1}"]), 7).await.expect("read");
        assert_eq!(whole.as_deref(), Some(&b"{\"a\":1}"[..]));
        assert!(!request.headers().contains_key(EXPECT));
        assert_eq!(text(request).await, "{\"a\":1}");
    }

    #[tokio::test]
    async fn a_body_above_the_limit_passes_untouched() {
        let (request, whole) = buffer(request(&["1234", "5678", "90"]), 7).await.expect("read");
        assert_eq!(whole, None);
        assert_eq!(text(request).await, "1234567890");
    }

    #[tokio::test]
    async fn a_body_that_says_it_is_too_large_is_not_read_at_all() {
        let request = Request::post("/").header(EXPECT, "100-continue").body(crate::server::full("12345678"));
        let (request, whole) = buffer(request.expect("a request"), 7).await.expect("passed on");
        assert_eq!((whole, request.headers().contains_key(EXPECT)), (None, true));
        assert_eq!(text(request).await, "12345678");
    }
}
