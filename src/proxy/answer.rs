//! The body of the upstream's answer, and what becomes of its connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::failure::{UpstreamError, reason};
use super::pool::{Link, Pool};

/// Extension of an answer that came while the client still waited for its `100 Continue`: the body
/// was never asked for, so the client's connection must not be used again.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyUnread;

/// What becomes of the connection once the answer is over.
#[derive(Debug)]
pub(super) enum Afterwards {
    /// Kept for another request.
    Keep(Pool),
    /// Kept as soon as the request is over too: an upstream may answer early and read on.
    Finish(Pool),
    /// Closed.
    Close,
}

impl Afterwards {
    fn happens_to(self, mut link: Link) {
        match self {
            Afterwards::Keep(pool) => pool.put(link),
            Afterwards::Finish(pool) => {
                tokio::spawn(async move {
                    // Ends with the request's body, which ends with its client at the latest.
                    if link.ready().await {
                        pool.put(link);
                    }
                });
            }
            Afterwards::Close => drop(link),
        }
    }
}

/// Whether nothing but the close of the connection ends the body of an answer with this head (RFC 9112 §6.3): it has
/// neither a length nor chunks, and no HTTP/2 stream whose end is said.
pub fn is_close_delimited(head: &Parts) -> bool {
    let says = |name| head.headers.contains_key(name);
    head.version <= Version::HTTP_11 && !says(CONTENT_LENGTH) && !says(TRANSFER_ENCODING)
}

/// The body of the upstream's answer. Ends cleanly only if the upstream ended it cleanly; dropped
/// before that, it closes the connection.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    /// None once the answer is over.
    link: Option<Link>,
    afterwards: Afterwards,
    url: String,
    idle_timeout: Option<Duration>,
    idle: Option<Pin<Box<Sleep>>>,
}

impl UpstreamBody {
    pub(super) fn new(
        incoming: Incoming,
        link: Link,
        afterwards: Afterwards,
        url: String,
        idle_timeout: Option<Duration>,
    ) -> Self {
        UpstreamBody { incoming, link: Some(link), afterwards, url, idle_timeout, idle: None }
    }

    /// Counts no time: for a stream whose silence somebody else watches.
    pub fn without_idle_timeout(mut self) -> Self {
        self.idle_timeout = None;
        self
    }

    /// Readers may stop at the last byte and never ask for the end.
    pub(super) fn release_link_if_over(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(link) = self.link.take()
        {
            std::mem::replace(&mut self.afterwards, Afterwards::Close).happens_to(link);
        }
    }

    fn fail(&mut self, error: UpstreamError) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        self.link = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let body = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut body.incoming).poll_frame(cx) {
            body.idle = None;
            return match frame {
                Some(Err(error)) => {
                    let (url, reason) = (body.url.clone(), reason(&error));
                    body.fail(UpstreamError::Reset { url, reason })
                }
                Some(Ok(frame)) => {
                    body.release_link_if_over();
                    Poll::Ready(Some(Ok(frame)))
                }
                None => {
                    body.release_link_if_over();
                    Poll::Ready(None)
                }
            };
        }
        // Counts only while somebody waits for the upstream, so a slow client does not count.
        let Some(after) = body.idle_timeout else { return Poll::Pending };
        ready!(body.idle.get_or_insert_with(|| Box::pin(sleep(after))).as_mut().poll(cx));
        let url = body.url.clone();
        body.fail(UpstreamError::IdleTimeout { url, after })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
