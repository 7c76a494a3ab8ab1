//! A Redis Cluster of real servers on loopback: three primaries, a replica each, formed and moved
//! about by commands over connections.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, cmd};
use tokio::time::sleep;

use super::redis_server::{LOOK_AGAIN, RedisServer, RedisServerOptions, try_ask, until};

/// How many primaries there are, and replicas.
const PRIMARIES: usize = 3;

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// Keys that are moved at once.
const KEYS_AT_ONCE: usize = 100;

/// How a cluster is started.
#[derive(Clone, Debug, Default)]
pub struct RedisClusterOptions {
    server: RedisServerOptions,
    clock_ahead: Duration,
}

/// A running cluster; its servers are gone when it is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// 0, 1, 2 began as primaries; 3, 4, 5 as their replicas.
    nodes: Vec<RedisServer>,
    ids: Vec<String>,
}

/// How a replica is made a primary by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterFailover {
    /// The primary helps: nothing is lost.
    Coordinated,
    /// The primary is not asked; the others vote.
    Force,
    /// Nobody is asked.
    Takeover,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
struct Myself {
    primary: bool,
    /// The node whose replica it is.
    of: String,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl RedisClusterOptions {
    /// A line of every node's configuration file.
    pub fn directive(mut self, line: impl Into<String>) -> Self {
        self.server = self.server.directive(line);
        self
    }

    /// The clocks of the first primaries show a later time than those of their replicas.
    pub fn clock_ahead(mut self, by: Duration) -> Self {
        self.clock_ahead = by;
        self
    }

    /// Starts the servers, makes them a cluster, and waits until all agree and replicas are in sync.
    pub async fn start(self) -> RedisCluster {
        let common = self.server.cluster();
        let common = [
            "cluster-node-timeout 1500",
            // However old what a replica has: the one that lacks a tail is what tests are about.
            "cluster-replica-validity-factor 0",
            "cluster-allow-replica-migration no",
            "repl-diskless-sync-delay 0",
        ]
        .into_iter()
        .fold(common, RedisServerOptions::directive);
        let nodes: Vec<_> = (0..2 * PRIMARIES)
            .map(|i| {
                let ahead = if i < PRIMARIES { self.clock_ahead } else { Duration::ZERO };
                common.clone().clock_ahead(ahead).start()
            })
            .collect();
        let mut ids = Vec::new();
        for node in &nodes {
            ids.push(ask::<String>(node, &["CLUSTER", "MYID"]).await);
        }
        let cluster = RedisCluster { nodes, ids };
        cluster.form().await;
        cluster
    }
}

impl RedisCluster {
    /// A cluster with defaults.
    pub async fn start() -> Self {
        RedisClusterOptions::default().start().await
    }

    /// Its URL with all nodes, without credentials.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// Its URL for `user:password`.
    pub fn url_as(&self, credentials: &str) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let at = if credentials.is_empty() { "" } else { "@" };
        format!("redis-cluster://{credentials}{at}{}", nodes.join(","))
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// One of its servers.
    pub fn node(&self, i: usize) -> &RedisServer {
        &self.nodes[i]
    }

    /// The same, to kill it or to start it again.
    pub fn node_mut(&mut self, i: usize) -> &mut RedisServer {
        &mut self.nodes[i]
    }

    /// The slot of a key, as a server computes it.
    pub async fn slot_of(&self, key: &str) -> u16 {
        let node = self.nodes.iter().find(|node| node.runs()).expect("one runs");
        ask(node, &["CLUSTER", "KEYSLOT", key]).await
    }

    /// Which node has a slot now. Waits while nobody has.
    pub async fn primary_of(&self, slot: u16) -> usize {
        until("a primary of the slot", async || self.primary_now(slot).await).await
    }

    /// The replica of the slot's primary. Waits while it has none.
    pub async fn replica_of(&self, slot: u16) -> usize {
        until("a replica of the slot's primary", async || self.replica_now(slot).await).await
    }

    /// Makes the replica of the slot's primary the primary; it is when this returns.
    pub async fn fail_over(&self, slot: u16, how: ClusterFailover) -> usize {
        let replica = self.replica_of(slot).await;
        until("the failover", async || {
            if self.primary_now(slot).await == Some(replica) {
                return Some(replica);
            }
            let mut asked = vec!["CLUSTER", "FAILOVER"];
            asked.extend(how.argument());
            // Refused while one is under way, or while the link to the primary is down.
            let _: Option<String> = try_ask(&self.nodes[replica], &asked).await;
            sleep(LOOK_AGAIN).await;
            (self.primary_now(slot).await == Some(replica)).then_some(replica)
        })
        .await
    }

    /// Moves a slot with its keys, as `redis-cli --cluster reshard` does.
    pub async fn migrate_slot(&self, slot: u16, to: usize) {
        let from = self.begin_migration(slot, to).await;
        self.move_keys(slot, from, to).await;
        self.end_migration(slot, from, to).await;
    }

    /// The first third of [`Self::migrate_slot`]: new keys of the slot go to `to`. The node that has it.
    pub async fn begin_migration(&self, slot: u16, to: usize) -> usize {
        let from = self.primary_of(slot).await;
        assert_ne!(from, to, "the slot is there already");
        let slot = slot.to_string();
        let _: () = ask(&self.nodes[to], &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]).await;
        let _: () = ask(&self.nodes[from], &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]).await;
        from
    }

    /// The second third: the keys that are there now.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) {
        self.move_some(slot, from, to, KEYS_AT_ONCE, Duration::ZERO).await;
    }

    /// The same key by key, with a pause before each: meanwhile neither node has all keys of the slot.
    pub async fn move_keys_slowly(&self, slot: u16, from: usize, to: usize, pause: Duration) {
        self.move_some(slot, from, to, 1, pause).await;
    }

    async fn move_some(&self, slot: u16, from: usize, to: usize, at_once: usize, pause: Duration) {
        let (slot, at_once) = (slot.to_string(), at_once.to_string());
        let port = self.nodes[to].port().to_string();
        loop {
            let keys: Vec<String> = ask(&self.nodes[from], &["CLUSTER", "GETKEYSINSLOT", &slot, &at_once]).await;
            if keys.is_empty() {
                return;
            }
            sleep(pause).await;
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            let _: String = ask(&self.nodes[from], &migrate).await;
        }
    }

    /// The last third: the slot is the other node's.
    pub async fn end_migration(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let others = (0..self.nodes.len()).filter(|i| *i != from && *i != to && self.nodes[*i].runs());
        for i in [to, from].into_iter().chain(others) {
            // Replicas hear it from their primaries.
            let set = ["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]];
            let _: Option<String> = try_ask(&self.nodes[i], &set).await;
        }
    }

    /// Node `from` holds that the empty slot is `to`'s, which does not: each sends callers to the other, as when a
    /// migration has reached one of the two.
    pub async fn disown(&self, slot: u16, from: usize, to: usize) {
        let _: String = ask(&self.nodes[from], &["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &self.ids[to]]).await;
    }

    /// Waits until all nodes that run agree that all slots are served, and replicas are in sync.
    pub async fn settled(&self) {
        until("a cluster in which all agree", async || {
            for node in self.nodes.iter().filter(|node| node.runs()) {
                let info: String = try_ask(node, &["CLUSTER", "INFO"]).await?;
                if !info.contains("cluster_state:ok") || !info.contains("cluster_slots_ok:16384") {
                    return None;
                }
                let replication: String = try_ask(node, &["INFO", "replication"]).await?;
                if replication.contains("role:slave") && !replication.contains("master_link_status:up") {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    async fn form(&self) {
        let first = &self.nodes[0];
        let per_node = usize::from(SLOTS).div_ceil(PRIMARIES);
        for (i, node) in self.nodes.iter().enumerate() {
            // Equal epochs would have to be settled among the nodes.
            let _: () = ask(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()]).await;
            if i < PRIMARIES {
                let end = ((i + 1) * per_node).min(usize::from(SLOTS)) - 1;
                let range = [(i * per_node).to_string(), end.to_string()];
                let _: () = ask(node, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
            }
            if i > 0 {
                let (port, bus) = (node.port().to_string(), node.bus_port().to_string());
                let _: () = ask(first, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
            }
        }
        for (i, node) in self.nodes.iter().enumerate().skip(PRIMARIES) {
            let replicate = ["CLUSTER", "REPLICATE", &self.ids[i - PRIMARIES]];
            // An error until the node has heard of its primary.
            until("a replica", async || try_ask::<String>(node, &replicate).await).await;
        }
        self.settled().await;
        until("six nodes that know each other and their parts", async || {
            for node in &self.nodes {
                let nodes: String = try_ask(node, &["CLUSTER", "NODES"]).await?;
                let all_known = self.ids.iter().all(|id| nodes.contains(id)) && !nodes.contains("handshake");
                if !all_known || nodes.matches(" connected").count() != self.nodes.len() {
                    return None;
                }
                let replicas = nodes.lines().filter(|line| line.contains("slave")).count();
                if replicas != PRIMARIES || nodes.contains("fail") {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    async fn primary_now(&self, slot: u16) -> Option<usize> {
        let all = self.all_of_themselves().await;
        let has = |myself: &Myself| {
            myself.primary && myself.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
        };
        // An old primary that has not heard yet has a lower epoch.
        all.into_iter().filter(|(_, myself)| has(myself)).max_by_key(|(_, myself)| myself.epoch).map(|(i, _)| i)
    }

    async fn replica_now(&self, slot: u16) -> Option<usize> {
        // The primary may be dead or frozen: any node knows whose the slot was.
        let primary = match self.primary_now(slot).await {
            Some(primary) => self.ids[primary].clone(),
            None => self.primary_by_hearsay(slot).await?,
        };
        let all = self.all_of_themselves().await;
        all.into_iter().find(|(_, myself)| !myself.primary && myself.of == primary).map(|(i, _)| i)
    }

    async fn primary_by_hearsay(&self, slot: u16) -> Option<String> {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            let Some(nodes) = try_ask::<String>(node, &["CLUSTER", "NODES"]).await else { continue };
            let has = |line: &&str| {
                Myself::parse(line).is_some_and(|node| node.slots.iter().any(|(a, b)| (*a..=*b).contains(&slot)))
            };
            let line = nodes.lines().find(has)?;
            return line.split(' ').next().map(str::to_owned);
        }
        None
    }

    async fn all_of_themselves(&self) -> Vec<(usize, Myself)> {
        let mut all = Vec::new();
        for (i, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
            let Some(nodes) = try_ask::<String>(node, &["CLUSTER", "NODES"]).await else { continue };
            let line = nodes.lines().find(|line| line.contains("myself"));
            all.extend(line.and_then(Myself::parse).map(|myself| (i, myself)));
        }
        all
    }
}

impl ClusterFailover {
    fn argument(self) -> Option<&'static str> {
        match self {
            ClusterFailover::Coordinated => None,
            ClusterFailover::Force => Some("FORCE"),
            ClusterFailover::Takeover => Some("TAKEOVER"),
        }
    }
}

impl Myself {
    /// Reads a line of `CLUSTER NODES`: id, address, flags, primary, ping, pong, epoch, link, slots.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        // Slots that are on their way are in brackets; the node that has them still names them before.
        let slots = fields.get(8..)?.iter().filter(|slots| !slots.starts_with('[')).filter_map(|slots| {
            let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        Some(Myself {
            primary: fields[2].contains("master"),
            of: fields[3].to_owned(),
            epoch: fields[6].parse().ok()?,
            slots: slots.collect(),
        })
    }
}

/// Asks a node that must answer.
async fn ask<T: FromRedisValue>(node: &RedisServer, words: &[&str]) -> T {
    command(&mut node.client().await, words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

async fn command<T: FromRedisValue>(client: &mut MultiplexedConnection, words: &[&str]) -> redis::RedisResult<T> {
    cmd(words[0]).arg(&words[1..]).query_async(client).await
}
