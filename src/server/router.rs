//! Which part of us answers a request on the data listener.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::gateway::{Gateway, api, demo, handshake};
use crate::intercept::Interceptor;
use crate::proxy::is_sidestream_upgrade;
use crate::server::{Body, Peer, Problem};

/// The data listener's service.
pub struct Router {
    prefix: String,
    demo: bool,
    gateway: Arc<Gateway>,
    interceptor: Arc<Interceptor>,
}

impl Router {
    /// `prefix` is the reserved path, without a final slash.
    pub fn new(prefix: String, demo: bool, gateway: Arc<Gateway>, interceptor: Arc<Interceptor>) -> Self {
        Router { prefix, demo, gateway, interceptor }
    }

    /// Answers one request. Paths below the prefix are ours, everything else is the upstream's,
    /// except a WebSocket that offers our subprotocol.
    pub async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let path = request.uri().path();
        if let Some(own) =
            path.strip_prefix(self.prefix.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))
        {
            return match own {
                "/v1/ws" => {
                    handshake::upgrade(&self.gateway, request, peer, None).unwrap_or_else(Problem::into_response)
                }
                "/demo" | "/demo/" if self.demo => demo::page(),
                own => {
                    let own = own.to_owned();
                    api::answer(&self.gateway, request, peer, &own).await
                }
            };
        }
        if is_sidestream_upgrade(&request) {
            let path = Some(request.uri().path().to_owned());
            return handshake::upgrade(&self.gateway, request, peer, path).unwrap_or_else(Problem::into_response);
        }
        self.interceptor.handle(request, peer).await
    }
}
