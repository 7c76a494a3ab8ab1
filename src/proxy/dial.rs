//! Opens connections to the upstream: name, TCP, TLS, HTTP version.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::pool::Link;
use super::target::Target;
use crate::config::Http2;

/// How often a peer that has gone without a word is looked for.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new().with_time(Duration::from_secs(30));

/// Knows how to reach one target.
pub(super) struct Dialer {
    target: Target,
    tls: Option<TlsConnector>,
    http2: Http2,
    timeout: Duration,
}

impl Dialer {
    /// A dialer whose [`Dialer::open`] gives up after `timeout`.
    pub(super) fn new(
        target: Target,
        http2: Http2,
        timeout: Duration,
        extra_roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, rustls::Error> {
        let tls = if target.is_secure() { Some(connector(http2, extra_roots)?) } else { None };
        Ok(Dialer { target, tls, http2, timeout })
    }

    /// Where it leads.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// A new connection, ready for a request. The error is what the system said, or `TimedOut`.
    pub(super) async fn open(&self) -> io::Result<Link> {
        match timeout(self.timeout, self.connect()).await {
            Ok(opened) => opened,
            Err(_) => {
                let text = format!("no connection within {} ms", self.timeout.as_millis());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    async fn connect(&self) -> io::Result<Link> {
        let stream = self.dial().await?;
        // Tokens are small and must not wait for each other.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        let link = match &self.tls {
            None if self.http2 == Http2::H2c => Link::http2(stream).await,
            None => Link::http1(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.target.host().to_owned()).map_err(io::Error::other)?;
                let stream = tls.connect(name, stream).await?;
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    Link::http2(stream).await
                } else {
                    Link::http1(stream).await
                }
            }
        };
        link.map_err(io::Error::other)
    }

    /// Tries the host's addresses one after the other; one that does not answer takes only its
    /// share of the time.
    async fn dial(&self) -> io::Result<TcpStream> {
        let deadline = Instant::now() + self.timeout;
        let addresses: Vec<_> = tokio::net::lookup_host((self.target.host(), self.target.port())).await?.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (i, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

fn connector(http2: Http2, extra_roots: Vec<CertificateDer<'static>>) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = if extra_roots.is_empty() {
        Verifier::new(provider.clone())?
    } else {
        Verifier::new_with_extra_roots(extra_roots, provider.clone())?
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous() // the name of the method; the verifier is the platform's
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = match http2 {
        Http2::Alpn => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Http2::Off | Http2::H2c => vec![b"http/1.1".to_vec()],
    };
    Ok(TlsConnector::from(Arc::new(config)))
}
