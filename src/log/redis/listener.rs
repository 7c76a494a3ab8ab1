//! The pub/sub connection of all followed sessions.
//!
//! It is rebuilt when it breaks, when the command connection was renewed (the server may be another
//! one, while this connection still hangs on the old), and when it is silent for 5 s and a message
//! to ourselves does not come back. Whenever it was rebuilt, every follower is told to read.
//! Must never: decide what a push means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{MultiplexedConnection, SendError};
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisError, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::backoff::{Backoff, random};
use super::follow::Followers;
use super::keys::Keys;
use super::options::plain_reason;
use super::supervisor::{Lane, State, Supervisor};

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
    supervisor: Arc<Supervisor>,
    followers: Arc<Followers>,
    probe: String,
    stop: CancellationToken,
}

/// What the connection's receiving side tells.
struct Ear {
    followers: Arc<Followers>,
    probe: String,
    since: Instant,
    /// Milliseconds from `since` to the newest message.
    heard: AtomicU64,
    lost: Notify,
}

impl Listener {
    /// Listens until `stop`.
    pub(super) fn start(supervisor: Arc<Supervisor>, followers: Arc<Followers>, keys: &Keys, stop: CancellationToken) {
        let probe = keys.probe_channel(random());
        tokio::spawn(Listener { supervisor, followers, probe, stop }.run());
    }

    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut connections = 0_u64;
        while let Some(generation) = self.wait_for_server().await {
            connections += 1;
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.listen(generation, connections > 1) => ended,
                () = self.stop.cancelled() => break,
            };
            self.followers.lost();
            tracing::warn!(reason = ended, "lost the pub/sub connection to Redis; followers read until it is back");
            if began.elapsed() > SILENCE {
                backoff = Backoff::default();
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.stop.cancelled() => break,
            }
        }
        self.followers.close();
    }

    /// The generation of the command connection, once there is one; `None`: stopped.
    async fn wait_for_server(&self) -> Option<u64> {
        let mut state = self.supervisor.state();
        tokio::select! {
            state = state.wait_for(|state| matches!(state, State::Up(_))) => match &*state.ok()? {
                State::Up(link) => Some(link.generation),
                State::Down(_) => None,
            },
            () = self.stop.cancelled() => None,
        }
    }

    /// Until the connection is of no use; says why.
    async fn listen(&self, generation: u64, again: bool) -> String {
        let ear = Arc::new(Ear {
            followers: self.followers.clone(),
            probe: self.probe.clone(),
            since: Instant::now(),
            heard: AtomicU64::new(0),
            lost: Notify::new(),
        });
        let mut connection = match self.connect(ear.clone()).await {
            Ok(connection) => connection,
            Err(reason) => return reason,
        };
        let all = self.followers.all();
        if let Err(reason) = self.subscribe(&mut connection, &all, again).await {
            return reason;
        }
        let mut state = self.supervisor.state();
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
                () = self.followers.changed() => {
                    if let Err(reason) = self.apply_changes(&mut connection).await {
                        return reason;
                    }
                }
                _ = tick.tick() => {
                    self.followers.prune();
                    let (now, heard) = (ear.now(), ear.heard.load(Ordering::Relaxed));
                    probed = match probed {
                        Some(at) if heard >= at => None,
                        Some(at) if now - at > 2000 => return "it does not hear what is published".into(),
                        Some(at) => Some(at),
                        None if Duration::from_millis(now - heard) >= SILENCE => self.send_probe().await.then_some(now),
                        None => None,
                    };
                }
            }
        }
    }

    async fn connect(&self, ear: Arc<Ear>) -> Result<MultiplexedConnection, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(move |push: PushInfo| -> Result<(), SendError> {
                ear.hear(push);
                Ok(())
            });
        let client = &self.supervisor.target().pushes;
        let explain = |error: RedisError| plain_reason(&error);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = tokio::time::timeout(PATIENCE, connecting)
            .await
            .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
            .map_err(explain)?;
        connection.subscribe(&self.probe).await.map_err(explain)?;
        Ok(connection)
    }

    async fn apply_changes(&self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        let changes = self.followers.changes();
        for chunk in changes.leave.chunks(CHUNK) {
            connection.unsubscribe(chunk).await.map_err(|error| plain_reason(&error))?;
        }
        self.subscribe(connection, &changes.subscribe, false).await
    }

    async fn subscribe(
        &self,
        connection: &mut MultiplexedConnection,
        names: &[String],
        again: bool,
    ) -> Result<(), String> {
        for chunk in names.chunks(CHUNK) {
            connection.subscribe(chunk).await.map_err(|error| plain_reason(&error))?;
            self.followers.confirmed(chunk, again);
        }
        Ok(())
    }

    /// Publishes to ourselves. Where that fails the command connection has a problem of its own.
    async fn send_probe(&self) -> bool {
        let publish = Cmd::new().arg("PUBLISH").arg(&self.probe).arg("").take();
        let sent = self
            .supervisor
            .call(Lane::Writes, |mut connection, _| async move { publish.query_async::<i64>(&mut connection).await });
        sent.await.is_ok()
    }
}

impl Ear {
    /// Called by the connection for every push; never blocks.
    fn hear(&self, push: PushInfo) {
        match push.kind {
            PushKind::Disconnection => self.lost.notify_one(),
            PushKind::Message => {
                self.heard.store(self.now(), Ordering::Relaxed);
                let Ok([Value::BulkString(channel), Value::BulkString(message)]) = <[Value; 2]>::try_from(push.data)
                else {
                    return;
                };
                match str::from_utf8(&channel) {
                    Ok(channel) if channel != self.probe => self.followers.pushed(channel, message),
                    _ => {}
                }
            }
            _ => self.heard.store(self.now(), Ordering::Relaxed),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
