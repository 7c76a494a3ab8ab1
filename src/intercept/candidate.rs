//! What is known of a request before it is forwarded.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, request};

use super::interceptor::accepts_stream;
use crate::config::{Ids, Route};
use crate::control::{Client, requested, taken_along};
use crate::dialect::Dialect;
use crate::json_pointer;
use crate::proxy::{Identity, identify};
use crate::run::{Tagging, Values};
use crate::server::Problem;
use crate::session::{IdError, RunId};
use crate::wire::Code;

/// By which a caller names the agent that answers.
const SOURCE: HeaderName = HeaderName::from_static("sidestream-source");

/// By which an agent says which run of its own makes this request.
const PARENT_RUN: HeaderName = HeaderName::from_static("sidestream-parent-run");

/// What is known of a request once its rules were applied.
pub(super) struct Candidate {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) identity: Identity,
    pub(super) input: Option<String>,
    pub(super) source: Option<String>,
    pub(super) tagging: Tagging,
    /// Who asks, for the calls that the route has for its runs.
    pub(super) client: Client,
    /// What the request's body has for these.
    pub(super) values: Values,
    /// The run that its answer will be, if that is a stream.
    pub(super) run: RunId,
    /// The run that makes this request.
    pub(super) parent: Option<RunId>,
    /// The page that asks.
    pub(super) origin: Option<HeaderValue>,
}

impl Candidate {
    /// What `route` makes of a request; `native` is the dialect whose calls its runs have. `body` is `None` where no rule needs it, or where it was too large.
    ///
    /// # Errors
    /// A header of ours that makes no sense: who sends one is no caller that knows nothing of us.
    pub(super) fn new(
        route: &Route,
        native: Option<&Arc<Dialect>>,
        head: &request::Parts,
        body: Option<&Bytes>,
        mut client: Client,
    ) -> Result<Self, Problem> {
        client.context.extend(taken_along(native, &head.headers));
        let source = head.headers.get(SOURCE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Candidate {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            identity: identify(&route.session, head, body.map(|bytes| &bytes[..]))?,
            input: route
                .input
                .as_deref()
                .and_then(|pointer| json_pointer::find(body?, pointer).map(|value| value.get().to_owned())),
            source: source.filter(|name| name.len() <= 128),
            tagging: match route.ids {
                Ids::Off => Tagging::Off,
                Ids::On => Tagging::On,
                Ids::Auto if head.method == Method::GET && accepts_stream(&head.headers) => Tagging::UnlessTheirs,
                Ids::Auto => Tagging::Off,
            },
            client,
            values: body.map(|body| requested(native, body)).unwrap_or_default(),
            run: RunId::from_random(crate::random::u128()),
            parent: parent(&head.headers)?,
            origin: head.headers.get(header::ORIGIN).cloned(),
        })
    }
}

/// The run that makes this request.
fn parent(headers: &HeaderMap) -> Result<Option<RunId>, Problem> {
    let Some(value) = headers.get(PARENT_RUN) else { return Ok(None) };
    let run = value.to_str().ok().and_then(|id| RunId::parse(id).ok());
    let wrong = || Problem::new(Code::BadRequest, format!("Sidestream-Parent-Run: {IdError}"));
    run.map(Some).ok_or_else(wrong)
}
