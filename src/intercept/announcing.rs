//! Starts in two steps: a POST is answered with JSON that names the session, and another request streams it. The
//! POST's answer passes through as it is; what the user said with it is logged in the session that it names.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{HeaderName, HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use tokio::time::timeout;

use super::candidate::Candidate;
use super::interceptor::{Interceptor, expose};
use crate::config::{Route, SessionRule};
use crate::server::{Body, BodyError};
use crate::session::{Kind, Record, SessionId};

/// The largest answer that is looked into.
const ANSWER_BYTES: usize = 64 << 10;

impl Interceptor {
    /// The answer to a request that is no stream. Where the route's sessions are named by such answers, and this is
    /// one: what was said is logged there. An answer whose length is known to be small is waited for, so that its
    /// head can name the session; any other passes at once.
    pub(super) async fn announced(
        self: &Arc<Self>,
        route: &Route,
        candidate: Candidate,
        response: Response<Body>,
    ) -> Response<Body> {
        let names = route.session.iter().any(|rule| matches!(rule, SessionRule::AnswerJson(_)));
        if !names || !response.status().is_success() || !is_json(response.headers()) {
            return response;
        }
        let small = response.body().size_hint().exact().is_some_and(|bytes| bytes <= ANSWER_BYTES as u64);
        let (mut head, mut body) = response.into_parts();
        if !small {
            let (interceptor, place) = (self.clone(), self.runs.may_begin());
            let said = move |answer: Bytes| {
                tokio::spawn(async move {
                    interceptor.said(&candidate, &answer).await;
                    drop(place);
                });
            };
            let copied = Copied { body, copy: Some((BytesMut::new(), Box::new(said))) };
            return Response::from_parts(head, Body::new(copied));
        }
        let (mut frames, mut answer) = (Vec::new(), BytesMut::new());
        let mut whole = false;
        while !whole {
            match body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.as_ref().map(|frame| frame.data_ref().map_or(&[][..], |data| data)) {
                        answer.extend_from_slice(data);
                    }
                    let broken = frame.is_err();
                    frames.push(frame);
                    if broken {
                        break;
                    }
                }
                None => whole = true,
            }
        }
        if whole && let Some(session) = self.said(&candidate, &answer).await {
            // Ids are plain ASCII by their types.
            if let Ok(value) = HeaderValue::from_str(session.as_str()) {
                head.headers.insert(HeaderName::from_static("sidestream-session"), value);
                expose(&mut head.headers);
            }
        }
        Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames))))
    }

    /// Logs what was said in the session that `answer` names, and waits a moment for the log: whoever streams the
    /// answer comes next.
    async fn said(self: &Arc<Self>, candidate: &Candidate, answer: &[u8]) -> Option<SessionId> {
        let Some(session) = candidate.identity.named_by_answer(answer) else {
            let route = format!("{} {}", candidate.method, candidate.path);
            if self.is_first(&format!("answer-json {route}")) {
                tracing::warn!(
                    route,
                    "an answer of JSON names no session, as an `answer-json` rule of its route says; what was said is in none"
                );
            }
            return None;
        };
        if let Some(said) = &candidate.input {
            let (run, source, event, id) = (None, None, None, None);
            let record = Record { kind: Kind::Input, run, source, event, id, data: said.clone().into() };
            let (publisher, subject) = (self.gateway.publisher.clone(), candidate.client.subject.clone());
            let into = session.clone();
            let publishing = self.gateway.tasks.spawn(async move {
                if let Err(error) = publisher.publish(&into, record, subject.as_ref()).await {
                    tracing::warn!(session = %into, %error, "what a user said is not in the session");
                }
            });
            // It goes on without us.
            let _ = timeout(self.eager_after, publishing).await;
        }
        Some(session)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = media_type == "application/json" || media_type.ends_with("+json");
    json && !headers.contains_key(CONTENT_ENCODING)
}

/// Who is told the answer, once it has passed.
type Told = Box<dyn FnOnce(Bytes) + Send>;

/// A body that passes, and is copied up to [`ANSWER_BYTES`].
struct Copied {
    body: Body,
    copy: Option<(BytesMut, Told)>,
}

impl Copied {
    fn whole(&mut self) {
        if let Some((copy, told)) = self.copy.take() {
            told(copy.freeze());
        }
    }
}

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some((copy, _))) = (frame.data_ref(), &mut self.copy) {
                    copy.extend_from_slice(data);
                    if copy.len() > ANSWER_BYTES {
                        self.copy = None;
                    }
                }
                if self.body.is_end_stream() {
                    self.whole();
                }
            }
            Poll::Ready(Some(Err(_))) => self.copy = None,
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
