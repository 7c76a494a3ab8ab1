//! Forwards one request and streams its answer back. In three steps, so that an interceptor can
//! step in between the answer's head and its body: [`Passthrough::prepare`], [`Passthrough::send`],
//! [`Passthrough::respond`]; [`Passthrough::handle`] is all of them in a row.

use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LOCATION, EXPECT, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;

use super::answer::BodyUnread;
use super::forwarded::Forwarding;
use super::{SetupError, Upstream, UpstreamBody, UpstreamError, ambiguous, headers, upgrade};
use crate::config::{self, HostPolicy, Network};
use crate::server::{Body, Peer, Problem};

/// Which encodings the upstream may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptEncoding {
    /// Those that the client offered.
    AsSent,
    /// None: the answer may be a stream that we have to read.
    Identity,
}

/// The plain proxy.
#[derive(Debug)]
pub struct Passthrough {
    upstream: Upstream,
    forwarding: Forwarding,
}

impl Passthrough {
    /// A proxy in front of `settings.url`. `trusted` are the networks whose `X-Forwarded-*` are
    /// believed; `extra_roots` are certificates trusted beside the system's.
    pub fn new(
        settings: &config::Upstream,
        trusted: Vec<Network>,
        extra_roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, SetupError> {
        let upstream = Upstream::new(settings, extra_roots)?;
        let target = upstream.target();
        let usual = if target.is_secure() { HostPolicy::Upstream } else { HostPolicy::Preserve };
        let host = settings.host.unwrap_or(usual);
        let forwarding = Forwarding { trusted, host, upstream: target.authority().clone() };
        Ok(Passthrough { upstream, forwarding })
    }

    /// The backend behind it.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Passes a request through: the upstream's answer, streaming, or a problem. Upgrades are
    /// tunnelled. When the client goes away the upstream's connection is closed.
    pub async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let answer = match upgrade::offered(request.headers(), request.version()) {
            Some(protocols) => upgrade::tunnel(self, request, peer, protocols).await,
            None => self.forward(request, peer).await,
        };
        answer.unwrap_or_else(Problem::into_response)
    }

    async fn forward(&self, request: Request<Body>, peer: Peer) -> Result<Response<Body>, Problem> {
        let request = self.prepare(request, peer, AcceptEncoding::AsSent)?;
        let (head, body) = self.send(request).await.map_err(problem)?.into_parts();
        Ok(self.respond(head, body.map_err(Into::into).boxed_unsync()))
    }

    /// The request as the upstream gets it: hop-by-hop fields and our own removed, forwarding
    /// fields set. An ambiguous request is a problem, which closes the client's connection.
    pub fn prepare(
        &self,
        request: Request<Body>,
        peer: Peer,
        encoding: AcceptEncoding,
    ) -> Result<Request<Body>, Problem> {
        let (mut head, body) = request.into_parts();
        let authority = ambiguous::check(&head)?;
        headers::remove_hop_by_hop(&mut head.headers);
        headers::remove_ours_and_twins(&mut head.headers);
        headers::join_cookies(&mut head.headers);
        self.forwarding.apply(&mut head.headers, authority.as_ref(), peer.addr);
        if head.version == Version::HTTP_10 {
            head.headers.remove(EXPECT); // RFC 9110 §10.1.1: must be ignored
        }
        if encoding == AcceptEncoding::Identity {
            head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Ok(Request::from_parts(head, body))
    }

    /// Sends a prepared request; see [`Upstream::send`].
    pub async fn send(&self, request: Request<Body>) -> Result<Response<UpstreamBody>, UpstreamError> {
        self.upstream.send(request).await
    }

    /// The answer as the client gets it: hop-by-hop fields removed, `Location` pointing at us
    /// where it pointed at the upstream, everything else as it was.
    pub fn respond(&self, mut head: response::Parts, body: Body) -> Response<Body> {
        let wanted = head.headers.get(UPGRADE).filter(|_| head.status == StatusCode::UPGRADE_REQUIRED).cloned();
        headers::remove_hop_by_hop(&mut head.headers);
        if let Some(protocols) = wanted {
            // A 426 without it says nothing (RFC 9110 §15.5.22), and upgrades do pass through.
            head.headers.insert(UPGRADE, protocols);
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        self.localize(&mut head.headers);
        if head.extensions.remove::<BodyUnread>().is_some() {
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        head.version = Version::HTTP_11; // ours, not the upstream's; the server lowers it if need be
        Response::from_parts(head, body)
    }

    fn localize(&self, headers: &mut HeaderMap) {
        for name in [LOCATION, CONTENT_LOCATION] {
            if let Some(path) = headers.get(&name).and_then(|value| self.upstream.target().relative(value)) {
                headers.insert(name, path);
            }
        }
    }
}

/// What the client is told when there is no answer. Its connection is closed: of its request's
/// body nobody knows how much was read.
pub fn problem(error: UpstreamError) -> Problem {
    tracing::warn!(code = %error.code(), %error, "no answer from the upstream");
    Problem::new(error.code(), error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_candidate_for_interception_asks_the_upstream_not_to_compress() {
        let settings = config::Upstream {
            url: http::Uri::from_static("http://agent:8000"),
            host: None,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: None,
            idle_timeout: None,
            http2: config::Http2::Off,
        };
        let proxy = Passthrough::new(&settings, Vec::new(), Vec::new()).expect("a proxy");
        let peer = Peer { addr: ([127, 0, 0, 1], 1).into() };
        for (encoding, expected) in [(AcceptEncoding::AsSent, "gzip, br"), (AcceptEncoding::Identity, "identity")] {
            let request = Request::post("/").header("host", "a").header(ACCEPT_ENCODING, "gzip, br");
            let request = request.body(crate::server::empty()).expect("a request");
            let prepared = proxy.prepare(request, peer, encoding).expect("prepared");
            assert_eq!(prepared.headers()[ACCEPT_ENCODING], expected);
        }
    }
}
