//! The client side of the proxy: connects to the upstream, sends one request, yields its answer.
//!
//! A request that may have an effect goes out on a connection of its own: if a kept one died under
//! it, nobody could say whether the upstream has begun, and it must never be sent twice. Only
//! requests that are idempotent and have no body use kept connections, and are sent again (once)
//! when such a connection turns out to be dead.

use std::time::Duration;

use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use rustls::pki_types::CertificateDer;

use super::answer::{Afterwards, BodyUnread, UpstreamBody};
use super::dial::Dialer;
use super::expect::{self, Progress};
use super::failure::{SetupError, UpstreamError, reason};
use super::pool::{Link, Pool};
use super::target::Target;
use crate::config;
use crate::server::{Body, empty};

/// The backend beside us.
pub struct Upstream {
    dialer: Dialer,
    first_byte_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    pool: Pool,
}

impl Upstream {
    /// An upstream by its settings. `extra_roots` are trusted beside the system's certificates
    /// (which `SSL_CERT_FILE` replaces). Does not connect.
    pub fn new(settings: &config::Upstream, extra_roots: Vec<CertificateDer<'static>>) -> Result<Self, SetupError> {
        let url = || settings.url.to_string();
        let target = Target::new(&settings.url).map_err(|reason| SetupError::Url { url: url(), reason })?;
        let dialer = Dialer::new(target, settings.http2, settings.connect_timeout, extra_roots)
            .map_err(|error| SetupError::Tls { url: url(), reason: error.to_string() })?;
        Ok(Upstream {
            dialer,
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
            pool: Pool::default(),
        })
    }

    /// Where requests go.
    pub fn target(&self) -> &Target {
        self.dialer.target()
    }

    /// Sends a request whose target is a path (the upstream's own prefix is put before it here)
    /// and whose `Host` is set, and waits for the response head. Dropping the future, or the body
    /// of the answer before its end, closes the connection to the upstream.
    ///
    /// # Errors
    /// See [`UpstreamError`]; only after `Unreachable` is it safe to send the request again.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<UpstreamBody>, UpstreamError> {
        if is_repeatable(&request)
            && let Some(link) = self.pool.take().await
        {
            let (head, _) = request.into_parts();
            let again = Request::from_parts(head.clone(), empty());
            match self.exchange(link, Request::from_parts(head, empty())).await {
                Err(UpstreamError::Reset { .. }) => self.exchange(self.connect().await?, again).await,
                answer => answer,
            }
        } else {
            self.exchange(self.connect().await?, request).await
        }
    }

    async fn exchange(&self, mut link: Link, request: Request<Body>) -> Result<Response<UpstreamBody>, UpstreamError> {
        let upgrade = request.headers().contains_key(UPGRADE);
        let has_body = !request.body().is_end_stream();
        let (request, gate) = expect::hold(self.addressed(request, link.is_http2()));
        let sent = match self.first_byte_timeout {
            None => link.send(request).await,
            Some(after) => {
                let (request, progress) = Progress::watch(request);
                tokio::select! {
                    sent = link.send(request) => sent,
                    () = progress.stops_for(after) => {
                        return Err(UpstreamError::HeadTimeout { url: self.target().url(), after });
                    }
                }
            }
        };
        let answer = sent.map_err(|error| self.explain(&error))?;
        let refused = gate.is_some() && !answer.status().is_success();
        if let Some(gate) = gate.filter(|_| !refused) {
            gate.open();
        }
        let afterwards = if refused {
            Afterwards::Close
        } else if has_body {
            Afterwards::Finish(self.pool.clone())
        } else {
            Afterwards::Keep(self.pool.clone())
        };
        let (url, idle_timeout) = (self.target().url(), self.idle_timeout);
        let mut answer = answer.map(|incoming| UpstreamBody::new(incoming, link, afterwards, url, idle_timeout));
        if refused {
            answer.extensions_mut().insert(BodyUnread);
        }
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.body_mut().release_link_if_over();
        } else if !upgrade {
            let reason = "101 to a request that did not ask for it".to_owned();
            return Err(UpstreamError::Invalid { url: self.target().url(), reason });
        }
        Ok(answer)
    }

    /// The request as the connection's HTTP version wants it.
    fn addressed(&self, mut request: Request<Body>, http2: bool) -> Request<Body> {
        let path = self.target().path(request.uri());
        if http2 {
            *request.version_mut() = Version::HTTP_2;
            let host = request.headers_mut().remove(HOST);
            let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
            let uri = Uri::builder()
                .scheme(self.target().scheme())
                .authority(host.unwrap_or_else(|| self.target().authority().clone()))
                .path_and_query(path);
            *request.uri_mut() = uri.build().expect("scheme, authority and path are all there");
        } else {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = Uri::from(path);
            if request.headers().contains_key(TE) {
                // RFC 9110 §10.1.4: TE concerns this hop and must be named as such.
                request.headers_mut().append(CONNECTION, HeaderValue::from_static("TE"));
            }
            // hyper drops a body without a length of GET and HEAD unless it is told the framing.
            if request.body().size_hint().exact().is_none() {
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        request
    }

    async fn connect(&self) -> Result<Link, UpstreamError> {
        self.dialer.open().await.map_err(|error| {
            let (url, reason) = (self.target().url(), reason(&error));
            UpstreamError::Unreachable { url, reason }
        })
    }

    fn explain(&self, error: &hyper::Error) -> UpstreamError {
        let (url, reason) = (self.target().url(), reason(error));
        if error.is_user() {
            UpstreamError::Request(reason)
        } else if error.is_parse() {
            UpstreamError::Invalid { url, reason }
        } else {
            UpstreamError::Reset { url, reason }
        }
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("target", self.target()).finish_non_exhaustive()
    }
}

/// Safe to send twice: idempotent, without a body, and no upgrade (RFC 9110 §9.2.2).
fn is_repeatable(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && request.body().is_end_stream()
        && !request.headers().contains_key(UPGRADE)
}
