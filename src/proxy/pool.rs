//! Connections to the upstream: made, used for one request at a time, and kept for a while when an
//! answer ended cleanly. Must never reuse one whose answer was not read to its end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::server::Body;

/// Most connections kept; above it the oldest is closed.
const KEPT: usize = 32;
/// How long one is kept. Many servers close after 5 s, and the shorter ours is, the rarer is a
/// request that meets a connection which is just being closed.
const KEEP_FOR: Duration = Duration::from_secs(4);
/// How long a connection may take to become usable again: its answer has ended, but its task may
/// not have seen that yet.
const SETTLE: Duration = Duration::from_millis(50);

/// One connection to the upstream. Dropping it closes the socket at once: for a backend that knows
/// no other way, that is the cancel.
#[derive(Debug)]
pub(super) struct Link {
    sender: Sender,
    /// The task that moves the bytes.
    _driver: AbortOnDropHandle<()>,
}

/// HTTP/2 is used as a format only: one stream at a time, so that one request's end, cancel or
/// failure is never another's.
#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Link {
    /// HTTP/1.1 over `io`.
    pub(super) async fn http1<I>(io: I) -> hyper::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.preserve_header_case(true);
        let (sender, driver) = builder.handshake(TokioIo::new(io)).await?;
        Ok(Self::driven(Sender::Http1(sender), driver.with_upgrades()))
    }

    /// HTTP/2 over `io`.
    pub(super) async fn http2<I>(io: I) -> hyper::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
        let (sender, driver) = builder.handshake(TokioIo::new(io)).await?;
        Ok(Self::driven(Sender::Http2(sender), driver))
    }

    fn driven(sender: Sender, driver: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        let driver = tokio::spawn(async move {
            // Whoever waits for the answer learns of the failure by it.
            if let Err(error) = driver.await {
                tracing::debug!(%error, "connection to the upstream ended");
            }
        });
        Link { sender, _driver: AbortOnDropHandle::new(driver) }
    }

    /// Whether requests go out as HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Sends a request. One at a time: the answer must be over before the next.
    pub(super) async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }

    /// Whether it can be used, once what it carries is over.
    pub(super) async fn ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// Connections whose last answer ended cleanly, newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<VecDeque<(Instant, Link)>>>);

impl Pool {
    /// The connection that was used last, if one is still open.
    pub(super) async fn take(&self) -> Option<Link> {
        loop {
            let (since, mut link) = self.kept().pop_back()?;
            if since.elapsed() < KEEP_FOR && timeout(SETTLE, link.ready()).await == Ok(true) {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn put(&self, link: Link) {
        {
            let mut kept = self.kept();
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back((Instant::now(), link));
        }
        let pool = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEEP_FOR).await;
            let mut kept = pool.kept();
            while kept.front().is_some_and(|(since, _)| since.elapsed() >= KEEP_FOR) {
                kept.pop_front();
            }
        });
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Instant, Link)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
