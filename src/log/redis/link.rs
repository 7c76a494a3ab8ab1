//! The connections to one server, from one examination to their end.
//!
//! A frozen server is noticed within 3 s, by a ping that is not answered while nothing else is, either. Must never:
//! send a request twice, or go on after an error that another connection would not give.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::deployment::Address;
use super::options::{Ack, plain_reason};
use super::refusals::Refusals;
use super::replication::Barrier;
use super::scripts::Scripts;
use super::server::{NoServer, Server, examine, judge, line_of};
use super::target::Target;
use crate::log::Unavailable;

/// How often the server is pinged.
const PING_EVERY: Duration = Duration::from_millis(1000);
/// How long an answer to a ping may take.
const PING_DEADLINE: Duration = Duration::from_millis(1500);
/// Commands that wait to be written per connection; then callers wait, within their deadline.
const QUEUE: usize = 1024;

/// What all connections of a log have in common.
pub(super) struct Common {
    pub(super) target: Target,
    pub(super) scripts: Scripts,
    pub(super) deadline: Duration,
}

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
    vitals: Vitals,
    /// What the server answers, but will not do.
    refusals: Refusals,
    established: Instant,
    /// How long the server is known to have been there for everybody when the link was established.
    pub(super) steady_before: Duration,
}

/// What is known of a link's health.
#[derive(Default)]
struct Vitals {
    /// Milliseconds from the link's beginning to the newest answer of any kind.
    heard: AtomicU64,
    /// Somebody had a reason to doubt the connection.
    doubt: Notify,
    /// Somebody had proof that it is of no use; the reason.
    condemned: std::sync::Mutex<Option<String>>,
    /// The link is given up: calls in flight end.
    given_up: CancellationToken,
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

impl Link {
    /// Connects to the server at `address`, examines it, and loads the scripts.
    pub(super) async fn connect(
        common: &Common,
        address: &Address,
        generation: u64,
    ) -> Result<(Self, Server), NoServer> {
        let target = &common.target;
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
        common.scripts.load(&mut writes).await.map_err(judged)?;
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
        let (vitals, refusals) = (Vitals::default(), Refusals::default());
        let (established, steady_before) = (Instant::now(), Duration::ZERO);
        let (identity, address) = (server.identity.as_str().into(), address.clone());
        let link = Link {
            generation,
            address,
            identity,
            writes,
            pages,
            barrier,
            vitals,
            refusals,
            established,
            steady_before,
        };
        Ok((link, server))
    }

    /// How long the server is known to have been there for everybody without a break: since this
    /// connection; where it is the first and came at once, since the server's start.
    pub(super) fn steady_for(&self) -> Duration {
        self.steady_before + self.established.elapsed()
    }

    /// What the server refuses to do now, for the operator.
    pub(super) fn refuses(&self) -> Option<String> {
        self.refusals.warning()
    }

    /// Gives the connections up: calls in flight end.
    pub(super) fn give_up(&self) {
        self.vitals.given_up.cancel();
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
        let connection = match lane {
            Lane::Writes => self.writes.clone(),
            Lane::Pages => self.pages.clone(),
        };
        let unknown = |detail: String| Err(Failed::Unknown(Unavailable::new(format!("{}: {detail}", self.address))));
        let answer = tokio::select! {
            biased;
            answer = timeout_at(until, request(connection, self.identity.clone())) => answer,
            () = self.vitals.given_up.cancelled() => return unknown("the connection was lost".into()),
        };
        match answer {
            Ok(Ok(value)) => {
                self.heard();
                let (Some(barrier), Some(key)) = (&self.barrier, settles) else { return Ok(value) };
                match timeout_at(until, barrier.pass(key)).await {
                    Ok(Ok(())) => Ok(value),
                    Ok(Err(reason)) => {
                        self.refusals.hear(&self.address, &reason);
                        unknown(reason)
                    }
                    Err(_) => {
                        let reason = "no replica had it in time (store.ack = \"replicated\")";
                        self.refusals.hear(&self.address, reason);
                        unknown(reason.into())
                    }
                }
            }
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => {
                self.vitals.doubt.notify_one();
                unknown("no answer in time".into())
            }
        }
    }

    fn explain(&self, error: &RedisError) -> Failed {
        let detail = format!("{}: {}", self.address, plain_reason(error));
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => {
                self.heard();
                let to = error.redirect_node().and_then(|(to, _)| Address::read(to, &self.address.host));
                return Failed::Moved { to, detail };
            }
            ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown) => {
                self.heard();
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
            self.condemn(&detail);
        } else {
            self.heard();
            self.refusals.hear(&self.address, &plain_reason(error));
        }
        Failed::Unknown(Unavailable::new(detail))
    }

    /// Says that the link is of no use.
    fn condemn(&self, reason: &str) {
        if let Ok(mut condemned) = self.vitals.condemned.lock() {
            condemned.get_or_insert_with(|| reason.to_owned());
        }
        self.vitals.doubt.notify_one();
    }

    /// Until the link is of no use; says why.
    pub(super) async fn watch(&self) -> String {
        let address = &self.address;
        loop {
            tokio::select! {
                () = tokio::time::sleep(PING_EVERY) => {}
                () = self.vitals.doubt.notified() => {}
            }
            if let Some(reason) = self.vitals.condemned.lock().ok().and_then(|mut condemned| condemned.take()) {
                return reason;
            }
            self.refusals.look(address);
            let asked = self.elapsed();
            let ping = async {
                let (ping, info) = (Cmd::new().arg("PING").take(), Cmd::new().arg("INFO").arg("replication").take());
                let (mut writes, mut pages) = (self.writes.clone(), self.pages.clone());
                tokio::try_join!(info.query_async::<String>(&mut writes), ping.exec_async(&mut pages))
            };
            match tokio::time::timeout(PING_DEADLINE, ping).await {
                // A server that was replaced and has its place again kept the connection, and not what it acknowledged.
                Ok(Ok((info, ()))) => match line_of(&info) {
                    Some(line) if self.identity.ends_with(line) => {}
                    Some(_) => {
                        return format!(
                            "{address} may have been replaced and have its place again: its data is of another line"
                        );
                    }
                    None => return format!("{address} has become a replica"),
                },
                Ok(Err(error)) => return format!("{address}: {}", plain_reason(&error)),
                // Slow, not frozen, where other answers came meanwhile.
                Err(_) if self.vitals.heard.load(Ordering::Relaxed) > asked => {}
                Err(_) => return format!("{address}: no answer to a ping within {} ms", PING_DEADLINE.as_millis()),
            }
        }
    }

    fn heard(&self) {
        self.vitals.heard.store(self.elapsed(), Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.established.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
