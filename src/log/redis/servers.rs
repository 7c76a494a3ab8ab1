//! All servers of a log: which of them is asked, and what is done where it is another's turn.
//!
//! A call goes to the server of its slot. Where that one says that the slot is another's, or on its way to
//! another, nothing was executed, and the call goes out again, within its deadline. Must never: send again what
//! may have been executed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, Seen};
use super::deployment::Deployment;
use super::dialect::mismatch;
use super::link::{Common, Failed, Lane};
use super::node::Node;
use super::options::RefusedStore;
use super::scripts::{Lua, Scripts};
use super::sentinel::Sentinels;
use super::slots::{Slot, SlotMap};
use super::target::Target;
use super::whereabouts::Whereabouts;
use crate::log::{StoreHealth, Unavailable};

/// The pause before a call is sent again whose slot is on its way to another server, unless there is a new map.
const UNSETTLED: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Servers {
    common: Arc<Common>,
    map: watch::Receiver<Arc<SlotMap>>,
    health: watch::Receiver<StoreHealth>,
    /// The slot of the instances' keys.
    instances: Slot,
    /// In a cluster: has its view asked for anew.
    doubt: Option<Arc<Notify>>,
}

impl Servers {
    /// Connects, and goes on in the background until `stop`. `Err`: somebody must change something.
    pub(super) async fn start(
        target: Target,
        deadline: Duration,
        instances: Slot,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, RefusedStore> {
        let servers = Self::connect(target, deadline, instances, stop.clone()).await?;
        let is_up = *servers.health.borrow() == StoreHealth::Up;
        if !is_up && let Some(refused) = mismatch(&servers.common.target).await {
            stop.cancel();
            return Err(refused);
        }
        Ok(servers)
    }

    async fn connect(
        target: Target,
        deadline: Duration,
        instances: Slot,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, RefusedStore> {
        let sharded = matches!(target.deployment, Deployment::Cluster { .. });
        let common = Arc::new(Common { scripts: Scripts::new(sharded), target, deadline });
        let whereabouts = match common.target.deployment.clone() {
            Deployment::Cluster { seeds } => {
                let Seen { map, health, doubt } = Cluster::start(common.clone(), seeds, stop).await?;
                return Ok(Arc::new(Servers { common, map, health, instances, doubt: Some(doubt) }));
            }
            Deployment::Sentinel { sentinels, master } => Whereabouts::Named(Sentinels::new(sentinels, master)),
            Deployment::Single(address) => Whereabouts::At(address),
        };
        let node = Node::new(common.clone(), whereabouts, stop);
        node.start().await?;
        let health = node.health();
        let map = watch::Sender::new(Arc::new(SlotMap::of_one(node))).subscribe();
        Ok(Arc::new(Servers { common, map, health, instances, doubt: None }))
    }

    /// The scripts.
    pub(super) fn scripts(&self) -> &Scripts {
        &self.common.scripts
    }

    /// Whether channels are sharded, as those of a cluster are.
    pub(super) fn is_sharded(&self) -> bool {
        self.doubt.is_some()
    }

    /// The command that publishes.
    pub(super) fn publish(&self) -> &'static str {
        if self.is_sharded() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Which server has which slot, now and as it changes.
    pub(super) fn map(&self) -> watch::Receiver<Arc<SlotMap>> {
        self.map.clone()
    }

    /// Whether the servers answer, now and as it changes.
    pub(super) fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    /// How long the server of the instances' leases is known to have been there for everybody.
    pub(super) fn steady_for(&self) -> Duration {
        self.map.borrow().node(self.instances).map(|node| node.steady_for()).unwrap_or_default()
    }

    /// Why the server of `slot`, or that of the instances' leases, cannot be asked anything; `None`: they can.
    pub(super) fn away(&self, slot: Slot) -> Option<Unavailable> {
        let map = self.map.borrow();
        [slot, self.instances].into_iter().find_map(|slot| {
            let Some(node) = map.node(slot) else { return Some(unserved()) };
            node.link().err()
        })
    }

    /// What the operator should know of the servers.
    pub(super) fn warnings(&self) -> Vec<String> {
        let map = self.map.borrow().clone();
        let mut warnings: Vec<String> = map.nodes().iter().flat_map(|node| node.warnings()).collect();
        warnings.dedup();
        warnings
    }

    /// Sends a command to the server of `slot`.
    pub(super) async fn command<T: FromRedisValue>(&self, slot: Slot, lane: Lane, command: &Cmd) -> Answered<T> {
        self.call(slot, lane, None, |mut connection, _| async move { command.query_async(&mut connection).await }).await
    }

    /// The same for what must not be taken back, with a key of the slot that settles it: see [`Link::call`](super::link::Link::call).
    pub(super) async fn settled<T: FromRedisValue>(
        &self,
        slot: Slot,
        lane: Lane,
        key: &str,
        all: &Pipeline,
    ) -> Answered<T> {
        let request = |mut connection, _| async move { all.query_async(&mut connection).await };
        self.call(slot, lane, Some(key), request).await
    }

    /// Sends commands that belong together to the server of `slot`.
    pub(super) async fn pipeline<T: FromRedisValue>(&self, slot: Slot, lane: Lane, all: &Pipeline) -> Answered<T> {
        self.call(slot, lane, None, |mut connection, _| async move { all.query_async(&mut connection).await }).await
    }

    /// Runs a script at the server of `slot`.
    pub(super) async fn script<T: FromRedisValue>(&self, slot: Slot, lua: &Lua, call: &Cmd) -> Answered<T> {
        self.call(slot, Lane::Writes, None, |mut connection, _| async move { lua.send(call, &mut connection).await })
            .await
    }

    /// Sends the request that `request` makes for the connection and the identity of the server of `slot`.
    /// Whatever is not an answer is `Unavailable`; so is one that does not count yet: see [`Link::call`](super::link::Link::call).
    pub(super) async fn call<T, F>(
        &self,
        slot: Slot,
        lane: Lane,
        settles: Option<&str>,
        request: impl Fn(MultiplexedConnection, Arc<str>) -> F,
    ) -> Answered<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let until = Instant::now() + self.common.deadline;
        let mut map = self.map.clone();
        let mut aim: Option<Arc<Node>> = None;
        loop {
            let now = map.borrow_and_update().clone();
            let aimed = aim.take();
            let was_sent = aimed.is_some();
            let Some(node) = aimed.or_else(|| now.node(slot).cloned()) else { return Err(unserved()) };
            let failed = match node.link()?.call(lane, settles, until, &request).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Unknown(unavailable)) => return Err(unavailable),
                Err(failed) => failed,
            };
            self.doubt();
            // Who was sent on and is sent on again waits: two servers may each hold that the other has the slot.
            if let Failed::Moved { to: Some(to), .. } = &failed
                && !was_sent
            {
                aim = now.node_at(to).cloned();
            }
            if aim.is_none() {
                let _ = timeout_at(until, timeout(UNSETTLED, map.changed())).await;
            }
            if Instant::now() >= until {
                return Err(failed.into());
            }
        }
    }

    /// Something about the map seems to be wrong.
    pub(super) fn doubt(&self) {
        if let Some(doubt) = &self.doubt {
            doubt.notify_one();
        }
    }
}

/// An answer of a server.
pub(super) type Answered<T> = Result<T, Unavailable>;

fn unserved() -> Unavailable {
    Unavailable::new("no server of the cluster is known to have the session's slot")
}
