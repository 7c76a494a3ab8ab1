//! Two bodies around the request's body on its way to the upstream: one holds it back until the
//! upstream says `100 Continue`, one notes when it last moved.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::server::{Body, BodyError};

/// How long an upstream may think about a `100 Continue` that it perhaps does not know
/// (RFC 9110 §10.1.1: a client must not wait for ever).
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the client waits for a `100 Continue` before it sends its body.
pub(super) fn is_expected(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Lets the body of a request that expects it flow only after the upstream's `100`. Not reading it
/// is what keeps our own server from sending a `100` of its own, so the expectation holds end to
/// end. The returned gate is opened by the `100`; open it too when the answer is a success.
pub(super) fn hold(request: Request<Body>) -> (Request<Body>, Option<Gate>) {
    if !is_expected(request.headers()) || http_body::Body::is_end_stream(request.body()) {
        return (request, None);
    }
    let gate = Gate::default();
    let opened = gate.0.clone().cancelled_owned();
    let waiting = Box::pin(async move {
        let _ = timeout(PATIENCE, opened).await;
    });
    let mut request = request.map(|body| Held { body, waiting: Some(waiting) }.boxed_unsync());
    let on_continue = gate.clone();
    hyper::ext::on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            on_continue.open();
        }
    });
    (request, Some(gate))
}

/// Holds a body back until it is opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(CancellationToken);

impl Gate {
    pub(super) fn open(&self) {
        self.0.cancel();
    }
}

struct Held {
    body: Body,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// When the request's body last moved: the time an upstream takes to answer counts from there, not
/// from the first byte of a long upload.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    /// Watches the body of a request.
    pub(super) fn watch(request: Request<Body>) -> (Request<Body>, Self) {
        let progress = Progress(Arc::new(Mutex::new(Instant::now())));
        let watched = progress.clone();
        (request.map(|body| Watched { body, progress: watched }.boxed_unsync()), progress)
    }

    /// Returns when nothing has moved for `limit`.
    pub(super) async fn stops_for(&self, limit: Duration) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

struct Watched {
    body: Body,
    progress: Progress,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            *self.progress.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
