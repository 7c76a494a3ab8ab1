//! What makes two requests with one key the same: their bodies, and what else says what is asked.
//! The digest is taken while the body passes by: must never hold a body.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Uri;
use http_body::{Body as _, Frame, SizeHint};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::server::{Body, BodyError};
use crate::session::SessionId;

/// A digest that is being taken: of the query, the session that the request names, and the body.
#[derive(Clone, Debug)]
pub(super) struct Fingerprint(Sha256);

/// A body that is being forwarded, and hashed.
pub(super) struct Hashed {
    body: Body,
    /// Bytes still to come, where the request says how many there are.
    left: Option<u64>,
    /// Who waits for the digest; nobody any more once it was told.
    taking: Option<(Fingerprint, oneshot::Sender<String>)>,
}

impl Fingerprint {
    /// Of a request whose body is still to come.
    pub(super) fn of(uri: &Uri, session: Option<&SessionId>) -> Self {
        let mut digest = Sha256::new();
        for part in [uri.query().unwrap_or_default(), session.map_or("", SessionId::as_str)] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Fingerprint(digest)
    }

    /// More of the body.
    pub(super) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest, as text.
    pub(super) fn finish(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.finalize())
    }

    /// The body, and its digest once it has passed; never, where it breaks off.
    pub(super) fn taken_of(self, body: Body) -> (Body, oneshot::Receiver<String>) {
        let (told, digest) = oneshot::channel();
        let left = body.size_hint().exact();
        let hashed = Hashed { body, left, taking: Some((self, told)) };
        (Body::new(hashed), digest)
    }
}

impl Hashed {
    fn whole(&mut self) {
        if let Some((fingerprint, told)) = self.taking.take() {
            // Who waited may have gone.
            let _ = told.send(fingerprint.finish());
        }
    }
}

impl http_body::Body for Hashed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    if let Some((fingerprint, _)) = &mut self.taking {
                        fingerprint.update(data);
                    }
                }
                // Whoever sends a body of known length does not ask for what comes after it.
                if self.left == Some(0) || self.body.is_end_stream() {
                    self.whole();
                }
            }
            Poll::Ready(Some(Err(_))) => self.taking = None,
            Poll::Ready(None) => self.whole(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Hashed {
    fn drop(&mut self) {
        // An empty body is never asked for a frame.
        if self.left == Some(0) {
            self.whole();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn fingerprint() -> Fingerprint {
        Fingerprint::of(&Uri::from_static("/chat?a=1"), None)
    }

    fn digest(body: &[u8]) -> String {
        let mut fingerprint = fingerprint();
        fingerprint.update(body);
        fingerprint.finish()
    }

    fn pieces(pieces: Vec<Result<&'static str, &'static str>>) -> Body {
        let frames = pieces.into_iter().map(|piece| piece.map(|p| Frame::data(p.into())).map_err(BodyError::from));
        StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn the_digest_is_that_of_the_whole_body_however_it_comes() {
        let (body, taken) = fingerprint().taken_of(pieces(vec![Ok("ab"), Ok("c")]));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(taken.await.unwrap(), digest(b"abc"));
    }

    #[tokio::test]
    async fn a_body_of_known_length_is_known_with_its_last_byte() {
        let (mut body, mut taken) = fingerprint().taken_of(crate::server::full("abc"));
        body.frame().await.unwrap().unwrap();
        assert_eq!(taken.try_recv().unwrap(), digest(b"abc"));
    }

    #[tokio::test]
    async fn an_empty_body_that_nobody_reads_has_a_digest() {
        let (body, taken) = fingerprint().taken_of(crate::server::empty());
        drop(body);
        assert_eq!(taken.await.unwrap(), digest(b""));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_or_is_not_read_to_its_end_has_no_digest() {
        let (body, taken) = fingerprint().taken_of(pieces(vec![Ok("ab"), Err("gone")]));
        assert!(body.collect().await.is_err());
        assert!(taken.await.is_err());
        let (mut body, taken) = fingerprint().taken_of(pieces(vec![Ok("ab"), Ok("c")]));
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert!(taken.await.is_err());
    }

    #[test]
    fn another_query_or_session_is_another_request() {
        let session = SessionId::from_random(1);
        let uri = Uri::from_static("/chat?a=1");
        let all = [
            Fingerprint::of(&uri, None),
            Fingerprint::of(&uri, Some(&session)),
            Fingerprint::of(&Uri::from_static("/chat"), None),
        ];
        let all: std::collections::HashSet<String> = all.into_iter().map(Fingerprint::finish).collect();
        assert_eq!(all.len(), 3);
    }
}
