//! The configuration as values. The defaults stand in `Default`, next to the words that explain
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::HeaderName;
use http::header::{ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE};

use super::network::Network;
use super::principal::PrincipalRule;
use super::problem::Problem;
use super::route::RoutePattern;
use super::route_settings::Route;
use super::store::Store;
use crate::dialect::Dialects;

/// Everything that the operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// The backend beside us.
    pub upstream: Upstream,
    /// The data listener.
    pub listen: SocketAddr,
    /// The health listener: read-only, may face the kubelet.
    pub health_listen: SocketAddr,
    /// The admin listener: never public.
    pub admin_listen: SocketAddr,
    /// Where sessions live.
    pub store: Store,
    /// The data listener's manners.
    pub server: Server,
    /// Who may do what.
    pub auth: Auth,
    /// What clients may put into the requests that are made for them.
    pub send: SendSettings,
    /// Serve on a non-loopback address without authentication.
    pub allow_open: bool,
    /// Bounds.
    pub limits: Limits,
    /// How the process leaves.
    pub shutdown: Shutdown,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Which streams are recorded where no route says it.
    pub intercept: Intercept,
    /// Rules per route; the first that matches wins. Those of `presets` stand behind all others.
    pub routes: Vec<Route>,
    /// Known backends whose routes are added.
    pub presets: Vec<String>,
    /// The wire formats that runs may speak.
    pub dialects: Dialects,
    /// What was written and has no effect, or another one than it seems to have.
    pub without_effect: Vec<Problem>,
}

/// The backend beside us.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `http://host:port` or `https://host:port`, with an optional path prefix.
    pub url: http::Uri,
    /// Which `Host` the upstream sees; `None`: `Preserve` for `http://`, `Upstream` for `https://`.
    pub host: Option<HostPolicy>,
    /// Time to connect, TLS handshake included.
    pub connect_timeout: Duration,
    /// Time until the response head; `None`: for ever (models think for minutes).
    pub first_byte_timeout: Option<Duration>,
    /// Time without a byte on a passed-through response body; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// HTTP/2 to the upstream.
    pub http2: Http2,
}

/// Which `Host` the upstream sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPolicy {
    /// The one that the client sent.
    Preserve,
    /// The upstream's own.
    Upstream,
}

/// HTTP/2 to the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2 {
    /// HTTP/1.1 only.
    #[default]
    Off,
    /// HTTP/2 by prior knowledge, without TLS.
    H2c,
    /// HTTP/2 where TLS negotiates it.
    Alpn,
}

/// The data listener's manners.
#[derive(Clone, Debug)]
pub struct Server {
    /// Reserved path prefix of our own routes, without a final slash.
    pub prefix: String,
    /// Networks whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Origins that may use our own routes from a browser; empty: the same origin only.
    pub cors_origins: Vec<String>,
    /// Largest request body that is read for a session, input or idempotency rule.
    pub identity_body_limit: u64,
    /// Serve the demo page at `<prefix>/demo`.
    pub demo: bool,
}

/// What clients may put into the requests that are made for them (`send`).
#[derive(Clone, Debug)]
pub struct SendSettings {
    /// Headers that a client may name.
    pub headers: Vec<HeaderName>,
    /// Headers of the client's own request (its WebSocket handshake, its POST) that are passed on.
    pub credentials: Vec<HeaderName>,
}

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Auth {
    /// How callers are authenticated.
    pub mode: AuthMode,
    /// Where a request says whose it is; the first that has a value wins.
    pub principal: Vec<PrincipalRule>,
}

/// How callers are authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Not at all: whoever reaches the listener may read every session.
    #[default]
    None,
}

/// Bounds. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest event that is kept.
    pub event_bytes: u64,
    /// Bytes of unfinished and unstored events of all runs together; then backpressure on runs whose
    /// events wait for the store.
    pub pending_bytes: u64,
    /// Longest run; then it is cancelled.
    pub run_duration: Duration,
    /// WebSocket connections.
    pub sockets: usize,
    /// Sessions attached on one socket.
    pub sessions_per_socket: usize,
    /// Largest WebSocket message of a client.
    pub message_bytes: usize,
    /// Bytes a direct caller may be behind its run before it is cut off.
    pub caller_buffer: u64,
    /// Bytes of the newest entries kept in memory per followed session.
    pub ring_bytes: usize,
    /// Runs that may wait in the queue of a session.
    pub queue_depth: usize,
    /// Bytes that they may have together.
    pub queue_bytes: u64,
}

/// How the process leaves.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// How long new requests are still accepted once the drain has begun.
    pub accept_for: Duration,
    /// Over how long clients are told to go.
    pub spread: Duration,
    /// How long active runs may go on.
    pub run_deadline: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The shape of a line.
    pub format: LogFormat,
    /// A level (`info`) or filter directives (`info,sidestream::run=debug`).
    pub level: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// Which streams are recorded where no route says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Intercept {
    /// Every method but GET and HEAD.
    #[default]
    Auto,
    /// None: a plain proxy.
    Off,
    /// Only these.
    Only(Vec<RoutePattern>),
}

/// 1 MiB.
const MIB: u64 = 1 << 20;

impl Config {
    /// The defaults, in front of `upstream`.
    pub fn new(upstream: http::Uri) -> Self {
        Config {
            upstream: Upstream::new(upstream),
            listen: local(8787),
            health_listen: local(8789),
            admin_listen: local(8788),
            store: Store::default(),
            server: Server::default(),
            auth: Auth::default(),
            send: SendSettings::default(),
            allow_open: false,
            limits: Limits::default(),
            shutdown: Shutdown::default(),
            log: LogSettings::default(),
            intercept: Intercept::default(),
            routes: Vec::new(),
            presets: Vec::new(),
            dialects: Dialects::new([]),
            without_effect: Vec::new(),
        }
    }
}

/// A port of this machine that nobody else reaches.
fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Upstream {
    /// The defaults for the backend at `url`.
    pub fn new(url: http::Uri) -> Self {
        Upstream {
            url,
            host: None,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: None,
            idle_timeout: None,
            http2: Http2::Off,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        // Loopback, RFC 1918, RFC 4193: where an ingress or another sidecar lives.
        let trusted: [(IpAddr, u8); 6] = [
            (Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            (Ipv6Addr::LOCALHOST.into(), 128),
            (Ipv4Addr::new(10, 0, 0, 0).into(), 8),
            (Ipv4Addr::new(172, 16, 0, 0).into(), 12),
            (Ipv4Addr::new(192, 168, 0, 0).into(), 16),
            (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0).into(), 7),
        ];
        Server {
            prefix: "/_sidestream".into(),
            trusted_proxies: trusted.map(|(address, bits)| Network { address, bits }).to_vec(),
            cors_origins: Vec::new(),
            identity_body_limit: 16 * MIB,
            demo: false,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Auth { mode: AuthMode::None, principal: vec![PrincipalRule::Header(http::header::AUTHORIZATION)] }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { format: LogFormat::Auto, level: "info".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            event_bytes: 16 * MIB,
            pending_bytes: 256 * MIB,
            run_duration: Duration::from_secs(3600),
            sockets: 20_000,
            sessions_per_socket: 64,
            message_bytes: 1 << 20,
            caller_buffer: 32 * MIB,
            ring_bytes: 256 << 10,
            queue_depth: 16,
            queue_bytes: MIB,
        }
    }
}

impl Default for SendSettings {
    fn default() -> Self {
        SendSettings { headers: vec![ACCEPT_LANGUAGE], credentials: vec![AUTHORIZATION, COOKIE] }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown {
            accept_for: Duration::from_secs(5),
            spread: Duration::from_secs(10),
            run_deadline: Duration::from_secs(25),
        }
    }
}
