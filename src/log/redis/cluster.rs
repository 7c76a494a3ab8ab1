//! The servers of a cluster, and which of them has which slots: asked for when a server says that a slot is
//! another's, when one is away, and every few seconds.
//!
//! Several are asked at once, and the newest view counts: who was cut off from the others still answers, with an
//! old one. Must never: keep a call waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all, try_join_all};
use redis::{AsyncConnectionConfig, Pipeline, ProtocolVersion, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::deployment::Address;
use super::link::{Common, Lane};
use super::node::Node;
use super::options::{RefusedStore, plain_reason};
use super::server::{NoServer, examine, judge, newest};
use super::slots::{Ranges, Slot, SlotMap};
use crate::log::{StoreHealth, Unavailable};

/// How long a server may take to tell its view, connection included.
const PATIENCE: Duration = Duration::from_millis(1000);
/// How often the view is asked for while all is well.
const CALM: Duration = Duration::from_secs(5);
/// The same while a server is away or a slot is nobody's.
const TROUBLE: Duration = Duration::from_millis(250);
/// The shortest time from one view to the next, however often somebody asks for it.
const PAUSE: Duration = Duration::from_millis(50);
/// How many servers are asked at once.
const ASKED: usize = 5;

/// What one server says of the cluster.
#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    /// The cluster works, as far as that server can see.
    ok: bool,
    /// Grows with every failover and every slot that changes hands.
    epoch: u64,
    /// The primaries, with their slots.
    primaries: Vec<(Address, Ranges)>,
    /// The others.
    replicas: Vec<Address>,
}

/// Finds the servers, and finds them again.
pub(super) struct Cluster {
    common: Arc<Common>,
    seeds: Vec<Address>,
    /// All that were seen lately, replicas included.
    known: Vec<Address>,
    map: watch::Sender<Arc<SlotMap>>,
    health: watch::Sender<StoreHealth>,
    doubt: Arc<Notify>,
    stop: CancellationToken,
    /// Whom to ask next.
    turn: usize,
}

/// What the rest of the log sees of a cluster.
pub(super) struct Seen {
    pub(super) map: watch::Receiver<Arc<SlotMap>>,
    pub(super) health: watch::Receiver<StoreHealth>,
    /// Has the view asked for anew.
    pub(super) doubt: Arc<Notify>,
}

impl Cluster {
    /// Asks the seeds, connects to all primaries, and goes on in the background. `Err`: somebody must change
    /// something.
    pub(super) async fn start(
        common: Arc<Common>,
        seeds: Vec<Address>,
        stop: CancellationToken,
    ) -> Result<Seen, RefusedStore> {
        let nobody = StoreHealth::Down { reason: "not connected yet".into() };
        let mut cluster = Cluster {
            common,
            known: Vec::new(),
            seeds,
            map: watch::Sender::new(Arc::new(SlotMap::of_ranges(Vec::new()))),
            health: watch::Sender::new(nobody),
            doubt: Arc::default(),
            stop,
            turn: 0,
        };
        match cluster.look().await {
            Ok(view) => {
                if view.primaries.is_empty() {
                    let reason = "no server of the cluster has slots; form it first (redis-cli --cluster create)";
                    cluster.health.send_replace(StoreHealth::Down { reason: reason.into() });
                }
                let new = cluster.apply(view);
                try_join_all(new.iter().map(|node| node.start())).await?;
            }
            Err(NoServer::Refused(refused)) => return Err(refused),
            Err(NoServer::Away(reason)) => {
                tracing::warn!(reason, "the Redis cluster is away; trying again in the background");
                cluster.health.send_replace(StoreHealth::Down { reason });
            }
        }
        let (map, health, doubt) = (cluster.map.subscribe(), cluster.health.subscribe(), cluster.doubt.clone());
        tokio::spawn(watch_health(map.clone(), cluster.health.clone(), cluster.stop.clone()));
        tokio::spawn(cluster.run());
        Ok(Seen { map, health, doubt })
    }

    async fn run(mut self) {
        loop {
            let next = if self.is_whole() { CALM } else { TROUBLE };
            tokio::select! {
                () = self.doubt.notified() => {}
                () = sleep(next) => {}
                () = self.stop.cancelled() => break,
            }
            match self.look().await {
                Ok(view) => {
                    self.apply(view).iter().for_each(|node| node.spawn());
                }
                // Every server says it for itself, in turn and several times a second; the nodes tell each once.
                Err(NoServer::Refused(refused)) => tracing::debug!(%refused, "no view of the Redis cluster"),
                Err(NoServer::Away(reason)) => tracing::debug!(reason, "no view of the Redis cluster"),
            }
            sleep(PAUSE).await;
        }
        self.map.borrow().nodes().iter().for_each(|node| node.stop());
    }

    /// Whether every slot has a server that answers.
    fn is_whole(&self) -> bool {
        let map = self.map.borrow();
        map.unserved() == 0 && map.nodes().iter().all(|node| node.link().is_ok())
    }

    /// The newest view of those who answer.
    async fn look(&mut self) -> Result<View, NoServer> {
        let nodes = self.map.borrow().nodes().to_vec();
        let up: Vec<&Arc<Node>> = nodes.iter().filter(|node| node.link().is_ok()).collect();
        self.turn = self.turn.wrapping_add(1);
        let connected = (0..up.len().min(ASKED)).map(|n| ask_node(up[(self.turn + n) % up.len()]));
        let strangers: Vec<&Address> = match self.is_whole() {
            true => Vec::new(),
            // Those we have no connection to: replicas, which hear of a failover first, and the seeds.
            false => {
                let all: Vec<_> = self.known.iter().chain(&self.seeds).collect();
                let turn = self.turn;
                let one = |n: usize| all[(turn * ASKED + n) % all.len()];
                (0..all.len().min(ASKED)).map(one).filter(|address| !up.iter().any(|n| n.is_at(address))).collect()
            }
        };
        let strangers = strangers.into_iter().map(|address| ask_stranger(&self.common, address));
        let (connected, strangers) = tokio::join!(join_all(connected), join_all(strangers));
        newest(connected.into_iter().chain(strangers), |view| (view.ok, view.epoch))
    }

    /// Makes the view the map. The servers that are new to it are to be started.
    fn apply(&mut self, view: View) -> Vec<Arc<Node>> {
        let before = self.map.borrow().clone();
        let mut new = Vec::new();
        self.known = view.primaries.iter().map(|(address, _)| address).chain(&view.replicas).cloned().collect();
        let ranges = view.primaries.into_iter().map(|(address, slots)| {
            let node = before.node_at(&address).cloned().unwrap_or_else(|| {
                let node = Node::new(self.common.clone(), address.into(), self.stop.child_token());
                new.push(node.clone());
                node
            });
            (node, slots)
        });
        let map = SlotMap::of_ranges(ranges.collect());
        if map == *before {
            return new;
        }
        for gone in before.nodes().iter().filter(|node| !map.nodes().iter().any(|other| other.number == node.number)) {
            gone.stop();
        }
        let (servers, unserved) = (map.nodes().len(), map.unserved());
        tracing::info!(servers, unserved, "learned which servers of the Redis cluster have which slots");
        self.map.send_replace(Arc::new(map));
        new
    }
}

fn question() -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("CLUSTER").arg("INFO");
    pipeline.cmd("CLUSTER").arg("SLOTS");
    pipeline
}

async fn ask_node(node: &Node) -> Result<View, NoServer> {
    let away = |unavailable: Unavailable| NoServer::Away(unavailable.detail);
    let link = node.link().map_err(away)?;
    let (question, until) = (question(), Instant::now() + PATIENCE);
    let ask = |mut connection, _| async move { question.query_async(&mut connection).await };
    let answer = link.call(Lane::Writes, None, until, ask).await;
    let (info, slots): (String, Value) = answer.map_err(|failed| away(failed.into()))?;
    Ok(view(&info, &slots, &link.address))
}

async fn ask_stranger(common: &Common, address: &Address) -> Result<View, NoServer> {
    let judged = |error: redis::RedisError| match plain_reason(&error).contains("cluster support disabled") {
        true => NoServer::Refused(RefusedStore::NoCluster { address: address.to_string() }),
        false => judge(&error, &common.target, address),
    };
    let asked = async {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let client = common.target.client(address, ProtocolVersion::RESP2)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(judged)?;
        let answer: RedisResult<(String, Value)> = question().query_async(&mut connection).await;
        if answer.as_ref().is_err_and(|error| error.to_string().contains("unknown command")) {
            // No server of a cluster; a sentinel perhaps. It says so itself.
            examine(&mut connection, &common.target, address).await?;
        }
        let (info, slots) = answer.map_err(judged)?;
        Ok(view(&info, &slots, address))
    };
    let late = |_| Err(NoServer::Away(format!("{address}: no answer within {PATIENCE:?}")));
    timeout(PATIENCE, asked).await.unwrap_or_else(late)
}

/// What `CLUSTER INFO` and `CLUSTER SLOTS` say at `asked`.
fn view(info: &str, slots: &Value, asked: &Address) -> View {
    let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let mut view = View {
        ok: fields.get("cluster_state") == Some(&"ok"),
        epoch: fields.get("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        ..View::default()
    };
    let Value::Array(ranges) = slots else { return view };
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = &parts[..] else { continue };
        let slot = |number: i64| u64::try_from(number).ok().and_then(Slot::from_number);
        let (Some(first), Some(last), Some(primary)) = (slot(*first), slot(*last), address_of(primary, asked)) else {
            continue;
        };
        match view.primaries.iter_mut().find(|(known, _)| *known == primary) {
            Some((_, slots)) => slots.push((first, last)),
            None => view.primaries.push((primary, vec![(first, last)])),
        }
        for replica in replicas.iter().filter_map(|replica| address_of(replica, asked)) {
            if !view.replicas.contains(&replica) {
                view.replicas.push(replica);
            }
        }
    }
    view
}

/// The address of a server in `CLUSTER SLOTS`: an endpoint that is not known is that of the server which was asked.
fn address_of(server: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(parts) = server else { return None };
    let [host, Value::Int(port), ..] = &parts[..] else { return None };
    let host = match host {
        Value::BulkString(host) => str::from_utf8(host).ok()?.to_owned(),
        Value::SimpleString(host) => host.clone(),
        Value::Nil => String::new(),
        _ => return None,
    };
    // `?`: the server does not know its own name yet.
    let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host };
    Some(Address { host, port: u16::try_from(*port).ok()? })
}

/// Keeps `health`: up where every slot has a server that answers.
async fn watch_health(
    mut map: watch::Receiver<Arc<SlotMap>>,
    health: watch::Sender<StoreHealth>,
    stop: CancellationToken,
) {
    // A server was away and is back: said even where nobody has seen it go.
    let mut flapped = false;
    loop {
        let now = map.borrow_and_update().clone();
        let mut states: Vec<_> = now.nodes().iter().map(|node| node.health()).collect();
        let down = states.iter_mut().find_map(|state| match &*state.borrow_and_update() {
            StoreHealth::Up => None,
            StoreHealth::Down { reason } => Some(reason.clone()),
        });
        let unserved = now.unserved();
        let is = match down {
            Some(reason) => StoreHealth::Down { reason },
            None if now.nodes().is_empty() => health.borrow().clone(),
            None if unserved > 0 => {
                StoreHealth::Down { reason: format!("no server of the cluster has {unserved} of the slots") }
            }
            None => StoreHealth::Up,
        };
        health.send_if_modified(|before| std::mem::replace(before, is.clone()) != is || flapped);
        flapped = false;
        let changed = states.iter_mut().map(|state| Box::pin(state.changed()));
        let changed = async {
            match changed.len() {
                0 => std::future::pending().await,
                _ => select_all(changed).await,
            }
        };
        tokio::select! {
            _ = changed => flapped = true,
            moved = map.changed() => if moved.is_err() { return },
            () = stop.cancelled() => {
                health.send_replace(StoreHealth::Down { reason: "closed".into() });
                return;
            }
        }
    }
}
