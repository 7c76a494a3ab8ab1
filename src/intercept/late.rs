//! Answers whose session is named by their first events, such as a conversation that the backend makes up. The
//! caller is served meanwhile; the run begins when the session is known, with everything that has come.
//!
//! Until then the events are in no log: for these few, durable before delivered does not hold for the direct
//! caller. One that gets our ids waits for them instead.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderName, HeaderValue, Response};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::sleep;

use super::beginning::{Streaming, keepalive};
use super::candidate::Candidate;
use super::claim::Fate;
use super::interceptor::{Interceptor, expose};
use crate::config::Route;
use crate::framing::{Decoder, Framing};
use crate::proxy::{Awaited, Basis, Named};
use crate::run::Tagging;
use crate::server::{Body, BodyError};
use crate::session::SessionId;
use crate::sse::Frame;

/// Most bytes and events that are held out of the log; then the run gets a session of its own.
const HELD_BYTES: usize = 64 << 10;
const HELD_EVENTS: usize = 16;

impl Interceptor {
    /// Answers at once with what comes, and begins the run when its session is known.
    pub(super) fn named_late(
        self: &Arc<Self>,
        route: &Arc<Route>,
        candidate: Candidate,
        named: Named,
        awaited: Awaited,
        answer: Streaming,
        fate: Option<Fate>,
    ) -> Response<Body> {
        let (run, tagging) = (candidate.run.clone(), candidate.tagging);
        let every = keepalive(route, &answer.format, tagging);
        let (early, body) = early();
        let (interceptor, route) = (self.clone(), route.clone());
        // A drain waits for the run, which begins at the latest when the instance leaves.
        let place = self.runs.may_begin();
        let Streaming { head, format, ending, body: events } = answer;
        let told = head.clone();
        tokio::spawn(async move {
            let ahead = candidate.tagging == Tagging::Off;
            let too_late = async {
                tokio::select! {
                    () = sleep(route.stall) => {}
                    () = interceptor.gateway.shutdown.closing() => {}
                }
            };
            let held = hold(events, format.framing, &awaited, &early, ahead, too_late).await;
            let named = match held.session {
                Some(session) => Named { session, basis: Basis::Rule },
                None => {
                    let pattern = route.pattern.to_string();
                    if interceptor.is_first(&format!("event-json {pattern}")) {
                        tracing::warn!(
                            route = pattern,
                            "no event of an answer names its session, as an `event-json` rule of its route says; it is kept in one of \
                         its own: mend the rule, or name the session another way"
                        );
                    }
                    named
                }
            };
            let answer = Streaming { head: told, format, ending, body: held.body };
            let begun = interceptor.open(&route, candidate, &named, answer, fate).await;
            early.hand_over(begun.body.boxed_unsync(), held.served);
            drop(place);
        });
        let mut response = self.recorded(head, body, tagging, every);
        // Ids are plain ASCII by their types.
        if let Ok(run) = HeaderValue::from_str(run.as_str()) {
            response.headers_mut().insert(HeaderName::from_static("sidestream-run"), run);
        }
        expose(response.headers_mut());
        response
    }
}

/// What came of the first events.
struct Held {
    session: Option<SessionId>,
    /// The whole answer, as if nobody had read it.
    body: Body,
    /// How many of its bytes the caller has.
    served: usize,
}

/// Reads until an event names the session, or too much has come, or the answer ends, or it is `too_late`.
async fn hold(
    mut body: Body,
    framing: Framing,
    awaited: &Awaited,
    early: &Early,
    ahead: bool,
    too_late: impl Future<Output = ()>,
) -> Held {
    tokio::pin!(too_late);
    let mut decoder = Decoder::new(framing, HELD_BYTES);
    let (mut held, mut last, mut events, mut served) = (BytesMut::new(), None, 0, 0);
    let mut session = None;
    while session.is_none() && held.len() < HELD_BYTES && events < HELD_EVENTS {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = &mut too_late => break,
        };
        let data = match frame.map(|frame| frame.map(BodyFrame::into_data)) {
            Some(Ok(Ok(data))) => data,
            Some(Ok(Err(other))) => {
                last = Some(Ok(other));
                break;
            }
            Some(Err(error)) => {
                last = Some(Err(error));
                break;
            }
            None => break,
        };
        held.extend_from_slice(&data);
        decoder.feed(&data);
        let mut out = BytesMut::new();
        for frame in decoder.by_ref() {
            match frame {
                Frame::Filler(raw) => out.extend_from_slice(&raw),
                Frame::Event { raw, event } => {
                    out.extend_from_slice(&raw);
                    events += 1;
                    session = awaited.find(&event.data);
                }
                Frame::OversizePart(_) | Frame::OversizeEnd { .. } => break,
            }
            if session.is_some() || events >= HELD_EVENTS {
                break;
            }
        }
        if ahead {
            served += out.len();
            early.send(out);
        }
    }
    let first = Some(Ok(BodyFrame::data(held.freeze()))).into_iter().chain(last);
    let frames = stream::unfold((first, body), |(mut first, mut body)| async move {
        let frame = match first.next() {
            Some(frame) => Some(frame),
            None => body.frame().await,
        };
        frame.map(|frame: Result<BodyFrame<Bytes>, BodyError>| (frame, (first, body)))
    });
    Held { session, body: StreamBody::new(frames).boxed_unsync(), served }
}

/// Who serves the caller before there is a run. Dropped before [`Early::hand_over`], the body breaks off.
struct Early(Arc<Mutex<Shared>>);

/// The caller's body: what comes before there is a run, then the run's bytes but those.
///
/// Bounded by what is held: the bytes and events above, and one read of the upstream.
struct EarlyBody {
    shared: Arc<Mutex<Shared>>,
    run: Option<(Body, usize)>,
}

#[derive(Default)]
struct Shared {
    queue: BytesMut,
    run: Option<(Body, usize)>,
    abandoned: bool,
    gone: bool,
    reader: Option<Waker>,
}

fn early() -> (Early, Body) {
    let shared = Arc::<Mutex<Shared>>::default();
    (Early(shared.clone()), Body::new(EarlyBody { shared, run: None }))
}

impl Early {
    fn send(&self, bytes: BytesMut) {
        self.change(|shared| {
            if !shared.gone {
                shared.queue.unsplit(bytes);
            }
        });
    }

    /// The run is `body` from now on, of which the caller has `served` bytes. Where the caller has left, the
    /// body is dropped here, as it would have been by the caller.
    fn hand_over(self, body: Body, served: usize) {
        let mut run = Some((body, served));
        self.change(|shared| {
            if !shared.gone {
                shared.run = run.take();
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Shared)) {
        let mut shared = lock(&self.0);
        change(&mut shared);
        let reader = shared.reader.take();
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        self.change(|shared| shared.abandoned = true);
    }
}

impl http_body::Body for EarlyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, BodyError>>> {
        if self.run.is_none() {
            let shared = self.shared.clone();
            let mut shared = lock(&shared);
            if !shared.queue.is_empty() {
                return Poll::Ready(Some(Ok(BodyFrame::data(shared.queue.split().freeze()))));
            }
            self.run = shared.run.take();
            if self.run.is_none() {
                if shared.abandoned {
                    return Poll::Ready(Some(Err("the run broke off before it began".into())));
                }
                shared.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let Some((body, served)) = &mut self.run else { return Poll::Pending };
        loop {
            let polled = Pin::new(&mut *body).poll_frame(cx);
            let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
            let mut data = match frame.into_data() {
                Ok(data) => data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            let had = data.split_to(data.len().min(*served));
            *served -= had.len();
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(BodyFrame::data(data))));
            }
        }
    }
}

impl Drop for EarlyBody {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.gone = true;
        shared.queue.clear();
        // Dropped outside of the lock: that may end a run.
        let run = shared.run.take();
        drop(shared);
        drop(run);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
