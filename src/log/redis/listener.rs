//! The pub/sub connection to one server, for the followed channels that it carries.
//!
//! It is rebuilt when it breaks, when the command connection was renewed (the server may be another
//! one, while this connection still hangs on the old), and when it is silent for 5 s and a message
//! to ourselves does not come back. Whenever it was rebuilt, every follower is told to read.
//! In a cluster, channels are sharded: they go where their slot goes, and the server drops them when it is gone.
//! Must never: decide what a push means.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::backoff::{Backoff, random};
use super::follow::Followers;
use super::keys::Keys;
use super::link::{Lane, Link};
use super::node::{Node, State};
use super::options::plain_reason;
use super::servers::Servers;
use super::slots::Slot;

/// Time to connect, and to confirm a subscription.
const PATIENCE: Duration = Duration::from_secs(2);
/// Silence after which the connection is probed.
const SILENCE: Duration = Duration::from_secs(5);
/// How often silence and departed followers are looked for.
const TICK: Duration = Duration::from_millis(500);
/// Channels per `SUBSCRIBE`.
const CHUNK: usize = 256;

/// See the module.
pub(super) struct Listener {
    servers: Arc<Servers>,
    node: Arc<Node>,
    followers: Arc<Followers>,
    keys: Keys,
}

/// What the connection's receiving side tells.
struct Ear {
    node: u64,
    followers: Arc<Followers>,
    probe: Option<String>,
    since: Instant,
    /// Milliseconds from `since` to the newest message.
    heard: AtomicU64,
    lost: Notify,
}

impl Listener {
    /// Listens to every server there is, until it is stopped.
    pub(super) fn start(servers: Arc<Servers>, followers: Arc<Followers>, keys: Keys, stop: CancellationToken) {
        tokio::spawn(async move {
            let mut map = servers.map();
            let mut known: HashSet<u64> = HashSet::new();
            loop {
                let now = map.borrow_and_update().clone();
                followers.assign(now.clone());
                known.retain(|number| now.nodes().iter().any(|node| node.number == *number));
                for node in now.nodes().iter().filter(|node| known.insert(node.number)) {
                    let (servers, node, followers, keys) =
                        (servers.clone(), node.clone(), followers.clone(), keys.clone());
                    tokio::spawn(Listener { servers, node, followers, keys }.run());
                }
                tokio::select! {
                    changed = map.changed() => if changed.is_err() { break },
                    () = stop.cancelled() => break,
                }
            }
        });
    }

    async fn run(self) {
        let mut backoff = Backoff::default();
        // The operator reads once that it is lost, and once that it is back.
        let told = AtomicBool::new(false);
        while let Some(link) = self.wait_for_server().await {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.listen(&link, &told) => ended,
                () = self.node.stopped() => break,
            };
            self.followers.lost(self.node.number);
            if matches!(&*self.node.state().borrow(), State::Up(now) if now.generation == link.generation)
                && !told.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(address = %link.address, reason = ended, "lost the pub/sub connection to Redis; followers read until it is back");
            }
            if began.elapsed() > SILENCE {
                backoff = Backoff::default();
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.node.stopped() => break,
            }
        }
        self.followers.lost(self.node.number);
    }

    /// The command connections, once there are any; `None`: stopped.
    async fn wait_for_server(&self) -> Option<Arc<Link>> {
        let mut state = self.node.state();
        tokio::select! {
            state = state.wait_for(|state| matches!(state, State::Up(_))) => match &*state.ok()? {
                State::Up(link) => Some(link.clone()),
                State::Down(_) => None,
            },
            () = self.node.stopped() => None,
        }
    }

    /// Until the connection is of no use; says why.
    async fn listen(&self, link: &Link, told: &AtomicBool) -> String {
        let number = self.node.number;
        let ear = Arc::new(Ear {
            node: number,
            followers: self.followers.clone(),
            probe: self.probe(),
            since: Instant::now(),
            heard: AtomicU64::new(0),
            lost: Notify::new(),
        });
        let mut connection = match self.connect(link, ear.clone()).await {
            Ok(connection) => connection,
            Err(reason) => return reason,
        };
        let mut changed = self.followers.watch();
        if let Err(reason) = self.subscribe(&mut connection, &self.followers.all(number)).await {
            return reason;
        }
        if told.swap(false, Ordering::Relaxed) {
            tracing::info!(address = %link.address, "the pub/sub connection to Redis is back");
        }
        let generation = link.generation;
        let mut state = self.node.state();
        let renewed = async {
            let _ = state.wait_for(|state| !matches!(state, State::Up(link) if link.generation == generation)).await;
        };
        tokio::pin!(renewed);
        let mut tick = tokio::time::interval(TICK);
        let mut probed: Option<u64> = None;
        loop {
            tokio::select! {
                () = ear.lost.notified() => return "the connection was closed".into(),
                () = &mut renewed => return "the command connection was lost or renewed".into(),
                _ = changed.changed() => {
                    if let Err(reason) = self.apply_changes(&mut connection).await {
                        return reason;
                    }
                }
                _ = tick.tick() => {
                    self.followers.prune(number);
                    let (now, heard) = (ear.now(), ear.heard.load(Ordering::Relaxed));
                    probed = match (probed, &ear.probe) {
                        (Some(at), _) if heard >= at => None,
                        (Some(at), _) if now - at > 2000 => return "it does not hear what is published".into(),
                        (Some(at), _) => Some(at),
                        (None, Some(probe)) if Duration::from_millis(now - heard) >= SILENCE => {
                            self.send_probe(probe).await.then_some(now)
                        }
                        (None, _) => None,
                    };
                }
            }
        }
    }

    /// A channel of this server's; `None`: it has no slots, or hardly any.
    fn probe(&self) -> Option<String> {
        let map = self.servers.map().borrow().clone();
        let ours = |slot| map.node(slot).is_some_and(|node| node.number == self.node.number);
        self.keys.probe_channel(random(), ours)
    }

    async fn connect(&self, link: &Link, ear: Arc<Ear>) -> Result<MultiplexedConnection, String> {
        let probe = ear.probe.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(move |push: PushInfo| -> Result<(), SendError> {
                ear.hear(push);
                Ok(())
            });
        let target = &self.node.common().target;
        let client = target.client(&link.address, ProtocolVersion::RESP3).map_err(|refused| refused.to_string())?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = tokio::time::timeout(PATIENCE, connecting)
            .await
            .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
            .map_err(|error| plain_reason(&error))?;
        self.send(&mut connection, self.subscribe_command(), probe.as_slice())
            .await
            .map_err(|error| plain_reason(&error))?;
        Ok(connection)
    }

    async fn apply_changes(&self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        let changes = self.followers.changes(self.node.number);
        let command = if self.servers.is_sharded() { "SUNSUBSCRIBE" } else { "UNSUBSCRIBE" };
        for chunk in changes.leave.chunks(CHUNK) {
            match self.send(connection, command, chunk).await {
                // Channels are left with their slot.
                Err(error) if !is_redirection(&error) => return Err(plain_reason(&error)),
                _ => {}
            }
        }
        self.subscribe(connection, &changes.subscribe).await
    }

    async fn subscribe(&self, connection: &mut MultiplexedConnection, names: &[String]) -> Result<(), String> {
        for chunk in names.chunks(CHUNK) {
            match self.send(connection, self.subscribe_command(), chunk).await {
                Ok(()) => {}
                Err(error) if is_redirection(&error) => {
                    self.servers.doubt();
                    self.followers.later(self.node.number, chunk);
                }
                Err(error) => return Err(plain_reason(&error)),
            }
        }
        Ok(())
    }

    fn subscribe_command(&self) -> &'static str {
        if self.servers.is_sharded() { "SSUBSCRIBE" } else { "SUBSCRIBE" }
    }

    /// Sends a command per channel, all at once. What the server confirms is heard as it comes: a slot
    /// that leaves in that moment says so between the confirmations, and what answers which cannot be told.
    async fn send(&self, connection: &mut MultiplexedConnection, command: &str, names: &[String]) -> RedisResult<()> {
        let mut pipeline = redis::pipe();
        for name in names {
            pipeline.cmd(command).arg(name).ignore();
        }
        pipeline.exec_async(connection).await
    }

    /// Publishes to ourselves. Where that fails the command connection has a problem of its own.
    async fn send_probe(&self, probe: &str) -> bool {
        let publish = Cmd::new().arg(self.servers.publish()).arg(probe).arg("").take();
        self.servers.command::<i64>(Slot::of(probe), Lane::Writes, &publish).await.is_ok()
    }
}

impl Ear {
    /// Called by the connection for every push; never blocks.
    fn hear(&self, push: PushInfo) {
        self.heard.store(self.now(), Ordering::Relaxed);
        match push.kind {
            PushKind::Disconnection => self.lost.notify_one(),
            PushKind::Message | PushKind::SMessage => {
                let Ok([Value::BulkString(channel), Value::BulkString(message)]) = <[Value; 2]>::try_from(push.data)
                else {
                    return;
                };
                match str::from_utf8(&channel) {
                    Ok(channel) if self.probe.as_deref() != Some(channel) => self.followers.pushed(channel, message),
                    _ => {}
                }
            }
            PushKind::Subscribe | PushKind::SSubscribe => {
                if let Some(channel) = channel_of(&push) {
                    self.followers.confirmed(self.node, channel);
                }
            }
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                if let Some(channel) = channel_of(&push) {
                    self.followers.dropped(self.node, channel);
                }
            }
            _ => {}
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn channel_of(push: &PushInfo) -> Option<&str> {
    match push.data.first() {
        Some(Value::BulkString(channel)) => str::from_utf8(channel).ok(),
        _ => None,
    }
}

/// Whether the server says that the slot is not its own (any more), or not for sure.
fn is_redirection(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    matches!(error.kind(), ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown))
}
