//! Which part of us answers a request on the data listener.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::gateway::{Gateway, api, demo, handshake};
use crate::intercept::Interceptor;
use crate::proxy::is_sidestream_upgrade;
use crate::server::{Body, Peer, Problem};
use crate::telemetry::{Fact, Metrics, RequestAnswered, RequestOutcome};
use crate::wire::Code;

/// The data listener's service.
pub struct Router {
    prefix: String,
    demo: bool,
    gateway: Arc<Gateway>,
    interceptor: Arc<Interceptor>,
    metrics: Metrics,
}

/// What follows the reserved `prefix` in a path of ours; `None`: the path is the upstream's.
pub fn own_path<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Router {
    /// `prefix` is the reserved path, without a final slash.
    pub fn new(prefix: String, demo: bool, gateway: Arc<Gateway>, interceptor: Arc<Interceptor>) -> Self {
        let metrics = gateway.metrics.clone();
        Router { prefix, demo, gateway, interceptor, metrics }
    }

    /// Answers one request. Paths below the prefix are ours, everything else is the upstream's,
    /// except a WebSocket that offers our subprotocol.
    pub async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (mut response, unless_told) = self.respond(request, peer).await;
        let said = response.extensions_mut().remove::<RequestOutcome>();
        let outcome = match (response.extensions().get::<Code>(), response.status()) {
            (Some(code), _) if code.status() < 500 => RequestOutcome::Refused,
            (Some(_), _) => RequestOutcome::Failed,
            (None, StatusCode::SWITCHING_PROTOCOLS) if unless_told == RequestOutcome::PassedThrough => {
                RequestOutcome::Tunnelled
            }
            (None, _) => said.unwrap_or(unless_told),
        };
        RequestAnswered { outcome, status: response.status() }.emit(&self.metrics);
        response
    }

    /// The answer, and what it is where it does not say so itself.
    async fn respond(&self, request: Request<Incoming>, peer: Peer) -> (Response<Body>, RequestOutcome) {
        let path = request.uri().path();
        if let Some(own) = own_path(&self.prefix, path) {
            let response = match own {
                "/v1/ws" => {
                    handshake::upgrade(&self.gateway, request, peer, None).unwrap_or_else(Problem::into_response)
                }
                "/demo" | "/demo/" if self.demo => demo::page(),
                own => {
                    let own = own.to_owned();
                    api::answer(&self.gateway, request, peer, &own).await
                }
            };
            return (response, RequestOutcome::Own);
        }
        if is_sidestream_upgrade(&request) {
            let path = Some(request.uri().path().to_owned());
            let response = handshake::upgrade(&self.gateway, request, peer, path);
            return (response.unwrap_or_else(Problem::into_response), RequestOutcome::Own);
        }
        (self.interceptor.handle(request, peer).await, RequestOutcome::PassedThrough)
    }
}
