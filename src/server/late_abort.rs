//! A body that breaks off does so after what came before it. The HTTP library throws away what it
//! has not written yet when a body yields an error, and that may be the head and whole events.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::body::{Body, BodyError};

/// How long the break waits for a client that does not read.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same where nobody says what has been written (HTTP/2 writes in another task).
const BLIND_PATIENCE: Duration = Duration::from_millis(20);

/// Says when everything that was written to a connection has been handed to the system.
#[derive(Clone, Debug, Default)]
pub(super) struct Flushes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    count: u64,
    waiting: Vec<Waker>,
}

impl Flushes {
    /// Everything has been handed over.
    pub(super) fn flushed(&self) {
        let mut state = self.lock();
        state.count += 1;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn count(&self) -> u64 {
        self.lock().count
    }

    fn poll_after(&self, count: u64, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.count > count {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body whose break waits until its connection has been flushed.
pub(super) struct LateAbort {
    body: Body,
    flushes: Option<Flushes>,
    breaking: Option<Breaking>,
}

struct Breaking {
    error: Option<BodyError>,
    after: u64,
    patience: Pin<Box<Sleep>>,
}

impl LateAbort {
    /// `flushes` of the connection that the body is sent on, where the task that polls the body
    /// flushes as well.
    pub(super) fn new(body: Body, flushes: Option<Flushes>) -> Self {
        LateAbort { body, flushes, breaking: None }
    }
}

impl http_body::Body for LateAbort {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.breaking.is_none() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Err(error)) => {
                    let patience = if this.flushes.is_some() { PATIENCE } else { BLIND_PATIENCE };
                    let after = this.flushes.as_ref().map_or(0, Flushes::count);
                    this.breaking = Some(Breaking { error: Some(error), after, patience: Box::pin(sleep(patience)) });
                }
                frame => return Poll::Ready(frame),
            }
        }
        let Some(breaking) = &mut this.breaking else { return Poll::Ready(None) };
        let flushed = this.flushes.as_ref().is_some_and(|flushes| flushes.poll_after(breaking.after, cx).is_ready());
        if !flushed {
            ready!(breaking.patience.as_mut().poll(cx));
        }
        Poll::Ready(breaking.error.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn breaks_off() -> Body {
        let frames = [Ok(Frame::data(Bytes::from_static(b"ab"))), Err(BodyError::from("over"))];
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn a_break_waits_for_the_flush_of_what_came_before() {
        let flushes = Flushes::default();
        flushes.flushed();
        let mut body = LateAbort::new(breaks_off(), Some(flushes.clone()));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert!(body.frame().now_or_never().is_none());
        flushes.flushed();
        assert_eq!(body.frame().now_or_never().unwrap().unwrap().unwrap_err().to_string(), "over");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_break_comes_by_itself_where_nobody_says_what_is_flushed() {
        let mut body = LateAbort::new(breaks_off(), None);
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.unwrap().is_err());
    }
}
