//! Where a run's answer comes from: the upstream has given it, or has to be asked first.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;

use crate::run::call::{Answer, Call, CallFailed};
use crate::server::{Body, BodyError};

/// The upstream's side of a run. Dropping it closes the connection where it is still open.
pub(in crate::run) enum Feed {
    /// The upstream is called when the run is open: never before, so that nothing is begun that is
    /// in no log.
    Unasked(Call),
    /// It was called.
    Asked(BoxFuture<'static, Result<Answer, CallFailed>>),
    /// It answers.
    Answering(Body),
    /// Nothing more comes.
    Closed,
}

/// What came.
pub(super) enum Heard {
    /// The head of the answer, or none.
    Head(Result<Answer, CallFailed>),
    /// A piece of its body; `None`: its end.
    Chunk(Option<Result<http_body::Frame<Bytes>, BodyError>>),
}

impl Feed {
    /// Whether something may come.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Feed::Asked(_) | Feed::Answering(_))
    }

    /// The run is open: calls the upstream, where that has not happened.
    pub(super) fn ask(self) -> Self {
        match self {
            Feed::Unasked(call) => Feed::Asked(call()),
            other => other,
        }
    }

    /// What comes next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Heard {
        match self {
            Feed::Asked(answer) => Heard::Head(answer.await),
            Feed::Answering(body) => Heard::Chunk(body.frame().await),
            Feed::Unasked(_) | Feed::Closed => std::future::pending().await,
        }
    }
}
