//! The connections to one server: kept up, and known at any moment to be there or not.
//!
//! A caller never waits for a connection: without one it fails at once, and no call takes longer
//! than the deadline. A frozen server is noticed within 3 s, by a ping that is not answered while
//! nothing else is, either. Must never: retry a call (the caller knows whether that is safe), or
//! hold on to a connection after an error that another connection would not give.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::deployment::Address;
use super::options::{Ack, plain_reason};
use super::replication::Barrier;
use super::scripts::Scripts;
use super::sentinel::Sentinels;
use super::server::{NoServer, Server, examine, judge, line_of};
use super::target::Target;
use crate::log::{StoreHealth, Unavailable};

/// Time to connect, handshake and examination included.
const CONNECT: Duration = Duration::from_secs(2);
/// How often the server is pinged.
const PING_EVERY: Duration = Duration::from_millis(1000);
/// How often sentinels are asked whether the primary is another: what is written to one that was replaced is lost
/// with it, and sent again by its owners.
const ASK_SENTINELS_EVERY: Duration = Duration::from_millis(500);
/// How long an answer to a ping may take.
const PING_DEADLINE: Duration = Duration::from_millis(1500);
/// Who connects at the first attempt and within this has found the server at work; who waits longer,
/// or has to try again, has not.
const PROMPT: Duration = Duration::from_millis(500);
/// A connection that held so long was a good one: the next attempt comes at once.
const STABLE: Duration = Duration::from_secs(5);
/// Commands that wait to be written per connection; then callers wait, within their deadline.
const QUEUE: usize = 1024;

/// Which of the connections carries a call: large pages must not delay appends and leases.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Appends, leases, everything small.
    Writes,
    /// Pages.
    Pages,
}

/// The connections to one server, from one examination to their end.
pub(super) struct Link {
    /// Counts connections, from 1.
    pub(super) generation: u64,
    /// Where it goes.
    pub(super) address: Address,
    /// The server's identity; empty: not known.
    pub(super) identity: Arc<str>,
    writes: MultiplexedConnection,
    pages: MultiplexedConnection,
    /// Where answers count only once a replica has what they say.
    barrier: Option<Barrier>,
    vitals: Arc<Vitals>,
    established: Instant,
    /// How long the server is known to have been there for everybody when the link was established.
    steady_before: Duration,
}

/// What is known of a link's health.
#[derive(Default)]
struct Vitals {
    /// Milliseconds from `since` to the newest answer of any kind.
    heard: AtomicU64,
    /// Somebody had a reason to doubt the connection.
    doubt: Notify,
    /// Somebody had proof that it is of no use; the reason.
    condemned: std::sync::Mutex<Option<String>>,
    /// The link is given up: calls in flight end.
    given_up: CancellationToken,
}

impl Link {
    /// Says that the link is of no use.
    fn condemn(&self, reason: &str) {
        if let Ok(mut condemned) = self.vitals.condemned.lock() {
            condemned.get_or_insert_with(|| reason.to_owned());
        }
        self.vitals.doubt.notify_one();
    }
}

/// Up or down, as callers see it.
#[derive(Clone)]
pub(super) enum State {
    Up(Arc<Link>),
    Down(Arc<str>),
}

/// What all connections of a log have in common.
pub(super) struct Common {
    pub(super) target: Target,
    pub(super) scripts: Scripts,
    pub(super) deadline: Duration,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The outcome is unknown.
    Unknown(Unavailable),
    /// Not executed: the slot is another server's (`MOVED`).
    Moved {
        /// Whose, where it says so.
        to: Option<Address>,
        /// What it said.
        detail: String,
    },
    /// Not executed: the slot is on its way to another server (`ASK`, `TRYAGAIN`), or nobody serves it
    /// just now (`CLUSTERDOWN`).
    Unsettled(String),
}

impl From<Failed> for Unavailable {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unknown(unavailable) => unavailable,
            Failed::Moved { detail, .. } | Failed::Unsettled(detail) => Unavailable::new(detail),
        }
    }
}

/// Where a node's server is.
pub(super) enum Whereabouts {
    /// Always here.
    At(Address),
    /// Wherever sentinels say.
    Named(Sentinels),
}

impl From<Address> for Whereabouts {
    fn from(address: Address) -> Self {
        Whereabouts::At(address)
    }
}

impl Whereabouts {
    /// Where the server is now.
    async fn find(&self, target: &Target) -> Result<Address, NoServer> {
        match self {
            Whereabouts::At(address) => Ok(address.clone()),
            Whereabouts::Named(sentinels) => sentinels.primary(target).await,
        }
    }

    /// Until the server is known to be elsewhere than at `address`; says where.
    async fn leave(&self, address: &Address, target: &Target) -> Address {
        match self {
            Whereabouts::At(_) => std::future::pending().await,
            Whereabouts::Named(sentinels) => loop {
                tokio::time::sleep(ASK_SENTINELS_EVERY).await;
                if let Ok(primary) = sentinels.primary(target).await
                    && primary != *address
                {
                    return primary;
                }
            },
        }
    }
}

/// See the module.
pub(super) struct Node {
    /// No other node of this process has it.
    pub(super) number: u64,
    whereabouts: Whereabouts,
    common: Arc<Common>,
    since: Instant,
    state: watch::Sender<State>,
    health: watch::Sender<StoreHealth>,
    warnings: std::sync::Mutex<Vec<String>>,
    generation: AtomicU64,
    stop: CancellationToken,
}

impl Node {
    /// A node that is not connected yet: see [`Node::start`].
    pub(super) fn new(common: Arc<Common>, whereabouts: Whereabouts, stop: CancellationToken) -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let down = "not connected yet";
        Arc::new(Node {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            whereabouts,
            common,
            since: Instant::now(),
            state: watch::Sender::new(State::Down(down.into())),
            health: watch::Sender::new(StoreHealth::Down { reason: down.into() }),
            warnings: std::sync::Mutex::default(),
            generation: AtomicU64::new(0),
            stop,
        })
    }

    /// Connects once, and goes on in the background. `Err`: somebody must change something.
    pub(super) async fn start(self: &Arc<Self>) -> Result<(), super::RefusedStore> {
        let asked = Instant::now();
        let first = match self.establish().await {
            Ok((mut link, server)) => {
                if let Some(refused) = server.unfit(&self.common.target, &link.address) {
                    return Err(refused);
                }
                // Not so after an attempt that failed: others may have had the same trouble.
                if asked.elapsed() <= PROMPT {
                    link.steady_before = server.uptime;
                }
                let link = Arc::new(link);
                self.up(&link);
                Some(link)
            }
            Err(NoServer::Refused(refused)) => return Err(refused),
            Err(NoServer::Away(reason)) => {
                self.down(&reason);
                None
            }
        };
        tokio::spawn(self.clone().run(first));
        Ok(())
    }

    /// The same without waiting for the first attempt; whatever comes of it shows in the state.
    pub(super) fn spawn(self: &Arc<Self>) {
        tokio::spawn(self.clone().run(None));
    }

    /// What all connections of the log have in common.
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// Whether this is the server at `address`.
    pub(super) fn is_at(&self, address: &Address) -> bool {
        matches!(&self.whereabouts, Whereabouts::At(at) if at == address)
    }

    /// Up or down, now and as it changes.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The same for the rest of the program.
    pub(super) fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    /// How long the server is known to have been there for everybody without a break: since this
    /// connection; where it is the first and came at once, since the server's start.
    pub(super) fn steady_for(&self) -> Duration {
        match &*self.state.borrow() {
            State::Up(link) => link.steady_before + link.established.elapsed(),
            State::Down(_) => Duration::ZERO,
        }
    }

    /// What the operator should know of the server.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().map(|warnings| warnings.clone()).unwrap_or_default()
    }

    /// Ends the connections, for good.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends when the connections are to end, for good.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Sends one request, once, and waits for the answer `until` then. `settles`: a key of the server's; the answer
    /// counts once it would survive, which is what `store.ack` says.
    pub(super) async fn call<T, F>(
        &self,
        lane: Lane,
        settles: Option<&str>,
        until: Instant,
        request: impl FnOnce(MultiplexedConnection, Arc<str>) -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let link = match &*self.state.borrow() {
            State::Up(link) => link.clone(),
            State::Down(reason) => return Err(Failed::Unknown(Unavailable::new(&**reason))),
        };
        let connection = match lane {
            Lane::Writes => link.writes.clone(),
            Lane::Pages => link.pages.clone(),
        };
        let unknown = |detail: String| Err(Failed::Unknown(Unavailable::new(format!("{}: {detail}", link.address))));
        let answer = tokio::select! {
            biased;
            answer = timeout_at(until, request(connection, link.identity.clone())) => answer,
            () = link.vitals.given_up.cancelled() => return unknown("the connection was lost".into()),
        };
        match answer {
            Ok(Ok(value)) => {
                link.vitals.heard.store(self.elapsed(), Ordering::Relaxed);
                let (Some(barrier), Some(key)) = (&link.barrier, settles) else { return Ok(value) };
                match timeout_at(until, barrier.pass(key)).await {
                    Ok(Ok(())) => Ok(value),
                    Ok(Err(reason)) => unknown(reason),
                    Err(_) => unknown("no replica had it in time (store.ack = \"replicated\")".into()),
                }
            }
            Ok(Err(error)) => Err(self.explain(&link, &error)),
            Err(_) => {
                link.vitals.doubt.notify_one();
                unknown("no answer in time".into())
            }
        }
    }

    fn explain(&self, link: &Link, error: &RedisError) -> Failed {
        let detail = format!("{}: {}", link.address, plain_reason(error));
        let heard = || link.vitals.heard.store(self.elapsed(), Ordering::Relaxed);
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => {
                heard();
                let to = error.redirect_node().and_then(|(to, _)| Address::read(to, &link.address.host));
                return Failed::Moved { to, detail };
            }
            ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown) => {
                heard();
                return Failed::Unsettled(detail);
            }
            _ => {}
        }
        let useless = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown)
        ) || error.code() == Some("NOAUTH")
            || error.is_unrecoverable_error();
        if useless {
            // Alive perhaps, but not what it was: a replica now, or gone.
            link.condemn(&detail);
        } else {
            heard();
        }
        Failed::Unknown(Unavailable::new(detail))
    }

    async fn run(self: Arc<Self>, first: Option<Arc<Link>>) {
        let mut next = first;
        let mut backoff = Backoff::default();
        loop {
            let attempt = match next.take() {
                Some(link) => Ok(link),
                None => tokio::select! {
                    attempt = self.establish() => attempt.map(|(link, _)| Arc::new(link)),
                    () = self.stop.cancelled() => break,
                },
            };
            match attempt {
                Ok(link) => {
                    self.up(&link);
                    let began = Instant::now();
                    let reason = tokio::select! {
                        reason = self.watch(&link) => reason,
                        () = self.stop.cancelled() => {
                            link.vitals.given_up.cancel();
                            break;
                        }
                    };
                    self.down(&reason);
                    link.vitals.given_up.cancel();
                    if began.elapsed() >= STABLE {
                        backoff = Backoff::default();
                    }
                }
                Err(NoServer::Refused(refused)) => self.down(&refused.to_string()),
                Err(NoServer::Away(reason)) => self.down(&reason),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.stop.cancelled() => break,
            }
        }
        self.down("closed");
    }

    fn up(&self, link: &Arc<Link>) {
        let before = self.state.send_replace(State::Up(link.clone()));
        if matches!(before, State::Down(_)) {
            tracing::info!(address = %link.address, generation = link.generation, "connected to Redis");
        }
        self.health.send_if_modified(|health| {
            let changed = *health != StoreHealth::Up;
            *health = StoreHealth::Up;
            changed
        });
    }

    fn down(&self, reason: &str) {
        let down = StoreHealth::Down { reason: reason.into() };
        let changed = self.health.send_if_modified(|health| {
            let changed = *health != down;
            *health = down;
            changed
        });
        if changed {
            tracing::warn!(reason, "Redis is away; trying again in the background");
        }
        self.state.send_replace(State::Down(reason.into()));
    }

    /// Connects, examines the server, and loads the scripts.
    async fn establish(&self) -> Result<(Link, Server), NoServer> {
        let address = self.whereabouts.find(&self.common.target).await?;
        match tokio::time::timeout(CONNECT, self.connect(&address)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let tls = self.common.target.tls;
                let hint = if tls { " to a TLS handshake; a server without TLS needs redis://" } else { "" };
                Err(NoServer::Away(format!("{address}: no answer within {} s{hint}", CONNECT.as_secs())))
            }
        }
    }

    async fn connect(&self, address: &Address) -> Result<(Link, Server), NoServer> {
        let target = &self.common.target;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(256 << 10);
        let client = target.client(address, ProtocolVersion::RESP2)?;
        let judged = |error: RedisError| judge(&error, target, address);
        let mut writes = client.get_multiplexed_async_connection_with_config(&config).await.map_err(judged)?;
        let pages = client.get_multiplexed_async_connection_with_config(&config).await.map_err(judged)?;
        let server = examine(&mut writes, target, address).await?;
        self.common.scripts.load(&mut writes).await.map_err(judged)?;
        let barrier = match target.ack() {
            Ack::Memory => None,
            Ack::Replicated => {
                let mut connection =
                    client.get_multiplexed_async_connection_with_config(&config).await.map_err(judged)?;
                let other = examine(&mut connection, target, address).await?.identity;
                if other != server.identity {
                    return Err(NoServer::Away(format!("{address}: the server changed while we connected")));
                }
                Some(Barrier::new(connection))
            }
        };
        self.heed(&server);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let vitals = Arc::new(Vitals::default());
        let (established, steady_before) = (Instant::now(), Duration::ZERO);
        let (identity, address) = (server.identity.as_str().into(), address.clone());
        let link = Link { generation, address, identity, writes, pages, barrier, vitals, established, steady_before };
        Ok((link, server))
    }

    fn heed(&self, server: &Server) {
        let Ok(mut known) = self.warnings.lock() else { return };
        for warning in server.warnings.iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!("{warning}");
        }
        known.clone_from(&server.warnings);
    }

    /// Until the link is of no use; says why.
    async fn watch(&self, link: &Link) -> String {
        let address = &link.address;
        let elsewhere = self.whereabouts.leave(address, &self.common.target);
        tokio::pin!(elsewhere);
        loop {
            tokio::select! {
                () = tokio::time::sleep(PING_EVERY) => {}
                () = link.vitals.doubt.notified() => {}
                primary = &mut elsewhere => return format!("{address} is not the primary any more, {primary} is"),
            }
            if let Some(reason) = link.vitals.condemned.lock().ok().and_then(|mut condemned| condemned.take()) {
                return reason;
            }
            let asked = self.elapsed();
            let ping = async {
                let (ping, info) = (Cmd::new().arg("PING").take(), Cmd::new().arg("INFO").arg("replication").take());
                let (mut writes, mut pages) = (link.writes.clone(), link.pages.clone());
                tokio::try_join!(info.query_async::<String>(&mut writes), ping.exec_async(&mut pages))
            };
            match tokio::time::timeout(PING_DEADLINE, ping).await {
                // A server that was replaced and has its place again kept the connection, and not what it acknowledged.
                Ok(Ok((info, ()))) => match line_of(&info) {
                    Some(line) if link.identity.ends_with(line) => {}
                    Some(_) => return format!("{address} has become the primary once more"),
                    None => return format!("{address} has become a replica"),
                },
                Ok(Err(error)) => return format!("{address}: {}", plain_reason(&error)),
                // Slow, not frozen, where other answers came meanwhile.
                Err(_) if link.vitals.heard.load(Ordering::Relaxed) > asked => {}
                Err(_) => return format!("{address}: no answer to a ping within {} ms", PING_DEADLINE.as_millis()),
            }
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
