//! An upstream that says what the plan says, and knows when its connection is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use sidestream::server::{Body, BodyError};
use tokio::sync::mpsc;

/// The upstream's end of an answer. Dropped: the answer ends properly.
#[derive(Debug)]
pub struct Upstream {
    pieces: mpsc::Sender<Result<Bytes, BodyError>>,
}

/// Sets its flag when the sidecar lets go of the answer.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Upstream {
    /// An upstream and the body that the sidecar reads; `closed` is set when that is dropped.
    pub fn new(closed: Arc<AtomicBool>) -> (Self, Body) {
        let (pieces, receiver) = mpsc::channel::<Result<Bytes, BodyError>>(4);
        let state = (receiver, Guard(closed));
        let frames = futures_util::stream::unfold(state, async |mut state| Some((state.0.recv().await?, state)));
        (Upstream { pieces }, StreamBody::new(frames.map(|piece| piece.map(http_body::Frame::data))).boxed_unsync())
    }

    /// Says something. `false`: nobody listens any more.
    pub async fn says(&self, text: impl Into<Bytes>) -> bool {
        self.pieces.send(Ok(text.into())).await.is_ok()
    }

    /// Breaks off.
    pub async fn resets(self) {
        // Where nobody listens, nothing breaks.
        let _ = self.pieces.send(Err("connection reset".into())).await;
    }

    /// Waits until the sidecar lets go.
    pub async fn is_closed(&self) {
        self.pieces.closed().await;
    }
}
