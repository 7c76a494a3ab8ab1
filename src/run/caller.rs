//! The direct HTTP caller of a run: a queue of bytes between the owner, which never waits, and the
//! response body, which is read as fast as the caller likes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::run::Seat;
use crate::server::BodyError;

/// A direct caller: what the owner writes to.
///
/// Bounded by bytes. Overflow: the caller is cut off (it can resume from the log); the run and
/// everybody else go on.
#[derive(Debug)]
pub(super) struct Caller {
    shared: Arc<Mutex<Shared>>,
    max_queued: usize,
}

/// The body of the direct caller's response.
#[derive(Debug)]
pub struct CallerBody {
    shared: Arc<Mutex<Shared>>,
    seat: Option<Seat>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: VecDeque<Bytes>,
    queued: usize,
    end: Option<End>,
    reader: Option<Waker>,
    gone: bool,
}

#[derive(Debug)]
enum End {
    Clean(Option<HeaderMap>),
    Aborted(&'static str),
}

/// A caller that may be `max_queued` bytes behind, and its response body.
pub(super) fn caller(max_queued: usize) -> (Caller, CallerBody) {
    let shared = Arc::<Mutex<Shared>>::default();
    (Caller { shared: shared.clone(), max_queued }, CallerBody { shared, seat: None })
}

impl CallerBody {
    /// The same, whose drop is the caller's leaving.
    pub(super) fn seated(mut self, seat: Option<Seat>) -> Self {
        self.seat = seat;
        self
    }
}

impl Caller {
    /// Queues bytes. `false`: the caller is gone, or has just been cut off.
    pub(super) fn send(&self, bytes: Bytes) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let mut shared = lock(&self.shared);
        if shared.gone || shared.end.is_some() {
            return false;
        }
        shared.queued += bytes.len();
        shared.queue.push_back(bytes);
        let fits = shared.queued <= self.max_queued;
        if !fits {
            shared.queue.clear();
            shared.end = Some(End::Aborted("the caller reads too slowly; resume from the log"));
        }
        wake(shared);
        fits
    }

    /// Ends the body as HTTP ends it.
    pub(super) fn end(self, trailers: Option<HeaderMap>) {
        self.finish(End::Clean(trailers));
    }

    /// Breaks the body off, after what is queued.
    pub(super) fn abort(self, reason: &'static str) {
        self.finish(End::Aborted(reason));
    }

    fn finish(&self, end: End) {
        let mut shared = lock(&self.shared);
        if shared.end.is_none() {
            shared.end = Some(end);
        }
        wake(shared);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // An owner that ends without a word did not end politely.
        self.finish(End::Aborted("the run broke off"));
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = lock(&self.shared);
        if let Some(bytes) = shared.queue.pop_front() {
            shared.queued -= bytes.len();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut shared.end {
            None => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Clean(trailers)) => Poll::Ready(trailers.take().map(|t| Ok(Frame::trailers(t)))),
            Some(End::Aborted(reason)) => Poll::Ready(Some(Err((*reason).into()))),
        }
    }
}

impl Drop for CallerBody {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.gone = true;
        shared.queue.clear();
        let ended = shared.end.is_some();
        drop(shared);
        // Of a body that has ended, or that was cut off, nobody leaves.
        match self.seat.take() {
            Some(seat) if ended => seat.forget(),
            seat => drop(seat),
        }
    }
}

fn wake(mut shared: MutexGuard<'_, Shared>) {
    let reader = shared.reader.take();
    drop(shared);
    if let Some(reader) = reader {
        reader.wake();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_caller_gets_everything_and_then_the_end() {
        let (caller, body) = caller(100);
        assert!(caller.send(Bytes::from_static(b"ab")));
        assert!(caller.send(Bytes::from_static(b"cd")));
        caller.end(None);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcd");
    }

    #[tokio::test]
    async fn an_abort_comes_after_what_was_sent() {
        let (caller, mut body) = caller(100);
        caller.send(Bytes::from_static(b"ab"));
        caller.abort("over");
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "over");
    }

    #[tokio::test]
    async fn a_caller_that_is_too_far_behind_is_cut_off_and_the_owner_goes_on() {
        let (caller, mut body) = caller(3);
        assert!(caller.send(Bytes::from_static(b"ab")));
        assert!(!caller.send(Bytes::from_static(b"cd")));
        assert!(!caller.send(Bytes::from_static(b"ef")));
        assert!(body.frame().await.unwrap().is_err());
    }

    #[test]
    fn an_owner_learns_that_its_caller_has_gone() {
        let (caller, body) = caller(3);
        drop(body);
        assert!(!caller.send(Bytes::from_static(b"a")));
    }
}
