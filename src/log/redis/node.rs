//! A server: connected to, again and again, and known at any moment to be there or not.
//!
//! A caller never waits for a connection: without one it fails at once. Must never: retry a call (the caller knows
//! whether that is safe).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::deployment::Address;
use super::link::{Common, Link};
use super::server::{NoServer, Server};
use super::whereabouts::Whereabouts;
use crate::log::{StoreHealth, Unavailable};

/// Time to connect, handshake and examination included.
const CONNECT: Duration = Duration::from_secs(2);
/// Who connects at the first attempt and within this has found the server at work; who waits longer,
/// or has to try again, has not.
const PROMPT: Duration = Duration::from_millis(500);
/// A connection that held so long was a good one: the next attempt comes at once.
const STABLE: Duration = Duration::from_secs(5);
/// How many reasons of one outage the operator reads at most.
const REASONS: usize = 8;

/// Up or down, as callers see it.
#[derive(Clone)]
pub(super) enum State {
    Up(Arc<Link>),
    Down(Arc<str>),
}

/// See the module.
pub(super) struct Node {
    /// No other node of this process has it.
    pub(super) number: u64,
    whereabouts: Whereabouts,
    common: Arc<Common>,
    state: watch::Sender<State>,
    health: watch::Sender<StoreHealth>,
    warnings: std::sync::Mutex<Vec<String>>,
    /// The reasons of the present outage that the log has.
    told: std::sync::Mutex<Vec<String>>,
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
            state: watch::Sender::new(State::Down(down.into())),
            health: watch::Sender::new(StoreHealth::Down { reason: down.into() }),
            warnings: std::sync::Mutex::default(),
            told: std::sync::Mutex::default(),
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

    /// How long the server is known to have been there: see [`Link::steady_for`].
    pub(super) fn steady_for(&self) -> Duration {
        match &*self.state.borrow() {
            State::Up(link) => link.steady_for(),
            State::Down(_) => Duration::ZERO,
        }
    }

    /// What the operator should know of the server.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.lock().map(|warnings| warnings.clone()).unwrap_or_default();
        if let State::Up(link) = &*self.state.borrow() {
            warnings.extend(link.refuses());
        }
        warnings
    }

    /// Ends the connections, for good.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends when the connections are to end, for good.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The connections that there are now.
    pub(super) fn link(&self) -> Result<Arc<Link>, Unavailable> {
        match &*self.state.borrow() {
            State::Up(link) => Ok(link.clone()),
            State::Down(reason) => Err(Unavailable::new(&**reason)),
        }
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
                            link.give_up();
                            break;
                        }
                    };
                    self.down(&reason);
                    link.give_up();
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
        if let Ok(mut told) = self.told.lock() {
            told.clear();
        }
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

    /// Whether the operator has not read it yet in this outage: reasons may take turns, twice a second, for hours.
    fn is_news(&self, reason: &str) -> bool {
        let Ok(mut told) = self.told.lock() else { return false };
        let news = told.len() < REASONS && !told.iter().any(|known| known == reason);
        if news {
            told.push(reason.to_owned());
        }
        news
    }

    fn down(&self, reason: &str) {
        let down = StoreHealth::Down { reason: reason.into() };
        let changed = self.health.send_if_modified(|health| {
            let changed = *health != down;
            *health = down;
            changed
        });
        if changed && !self.stop.is_cancelled() && self.is_news(reason) {
            tracing::warn!(reason, "Redis is away; trying again in the background");
        }
        self.state.send_replace(State::Down(reason.into()));
    }

    /// Connects, examines the server, and loads the scripts.
    async fn establish(&self) -> Result<(Link, Server), NoServer> {
        let address = self.whereabouts.find(&self.common.target).await?;
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        match tokio::time::timeout(CONNECT, Link::connect(&self.common, &address, generation)).await {
            Ok(outcome) => {
                let (link, server) = outcome?;
                self.generation.store(generation, Ordering::Relaxed);
                self.heed(&server);
                Ok((link, server))
            }
            Err(_) => {
                let tls = self.common.target.tls;
                let hint = if tls { " to a TLS handshake; a server without TLS needs redis://" } else { "" };
                Err(NoServer::Away(format!("{address}: no answer within {} s{hint}", CONNECT.as_secs())))
            }
        }
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
        tokio::select! {
            reason = link.watch() => reason,
            primary = self.whereabouts.leave(&link.address, &self.common.target) => {
                format!("{} is not the primary any more, {primary} is", link.address)
            }
        }
    }
}
