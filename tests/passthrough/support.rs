//! A proxy under test, and sockets that a test reads and writes byte by byte. Whatever does not
//! happen within [`PATIENCE`] fails the test.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sidestream::config::{Http2, Network, Upstream};
use sidestream::proxy::Passthrough;
use sidestream::server::{Manners, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A proxy in front of something; stops when dropped.
pub struct Proxy {
    pub addr: SocketAddr,
    pub serving: tokio::task::JoinHandle<()>,
    stop: DropGuard,
}

impl Proxy {
    /// With every setting at its default.
    pub async fn to(url: &str) -> Self {
        Self::with(settings(url), Manners::default()).await
    }

    pub async fn with(settings: Upstream, manners: Manners) -> Self {
        Self::trusting(settings, manners, Vec::new()).await
    }

    pub async fn trusting(
        settings: Upstream,
        manners: Manners,
        roots: Vec<rustls::pki_types::CertificateDer<'static>>,
    ) -> Self {
        let trusted = vec![Network { address: "127.0.0.0".parse().unwrap(), bits: 8 }];
        let proxy = Arc::new(Passthrough::new(&settings, trusted, roots).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let service = move |request, peer| {
            let proxy = proxy.clone();
            async move { proxy.handle(request, peer).await }
        };
        let serving = tokio::spawn(serve(listener, manners, service, stop.clone()));
        Proxy { addr, serving, stop: stop.drop_guard() }
    }

    pub async fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.addr).await.unwrap())
    }

    /// Tells it to stop, and hands out what ends when it has.
    pub fn stop(self) -> tokio::task::JoinHandle<()> {
        drop(self.stop);
        self.serving
    }
}

pub fn settings(url: &str) -> Upstream {
    Upstream {
        url: url.parse().unwrap(),
        host: None,
        connect_timeout: Duration::from_secs(5),
        first_byte_timeout: None,
        idle_timeout: None,
        http2: Http2::Off,
    }
}

/// A backend whose answers a test writes by hand.
pub struct Backend(TcpListener);

impl Backend {
    pub async fn new() -> Self {
        Backend(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The next connection.
    pub async fn accept(&self) -> Wire {
        Wire::new(soon(self.0.accept()).await.unwrap().0)
    }

    /// Whether nobody has connected (any more). Connections that exist are in the backlog at once.
    pub async fn is_left_alone(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.0.accept()).await.is_err()
    }
}

/// A backend and a default proxy in front of it.
pub async fn pair() -> (Backend, Proxy) {
    let backend = Backend::new().await;
    let proxy = Proxy::to(&backend.url()).await;
    (backend, proxy)
}

/// One socket.
pub struct Wire {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// How a peer ended the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Wire { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Everything up to and with `end`.
    pub async fn read_until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|w| w == end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            }
            let n = soon(self.stream.read_buf(&mut self.read)).await.unwrap();
            assert!(n > 0, "closed before {end:?}; there was {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// A message head.
    pub async fn head(&mut self) -> Head {
        let text = self.read_until("\r\n\r\n").await;
        let mut lines = text.trim_end().split("\r\n").map(str::to_owned);
        Head { first: lines.next().unwrap(), lines: lines.collect() }
    }

    pub async fn read_exactly(&mut self, n: usize) -> String {
        while self.read.len() < n {
            let read = soon(self.stream.read_buf(&mut self.read)).await.unwrap();
            assert!(read > 0, "closed; there was {:?}", String::from_utf8_lossy(&self.read));
        }
        let rest = self.read.split_off(n);
        String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap()
    }

    /// Everything to the end of the connection, and which end it was.
    pub async fn rest(&mut self) -> (String, End) {
        let end = loop {
            match soon(self.stream.read_buf(&mut self.read)).await {
                Ok(0) => break End::Closed,
                Ok(_) => {}
                Err(_) => break End::Reset,
            }
        };
        (String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned(), end)
    }

    /// Whether the peer has nothing to say for now.
    pub async fn is_silent(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.read);
        let waited = tokio::time::timeout(Duration::from_millis(100), read).await;
        waited.is_err() && self.read.is_empty()
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

/// A message head as it was on the wire.
#[derive(Debug)]
pub struct Head {
    pub first: String,
    pub lines: Vec<String>,
}

impl Head {
    /// The values of a field, joined as RFC 9110 allows.
    pub fn get(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .lines
            .iter()
            .filter_map(|line| line.split_once(": "))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect();
        if values.is_empty() { None } else { Some(values.join(", ")) }
    }

    /// Whether a line is there exactly so.
    pub fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|l| l == line)
    }
}

/// What must happen soon.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}

pub const PATIENCE: Duration = Duration::from_secs(10);
