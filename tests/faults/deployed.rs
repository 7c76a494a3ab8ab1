//! The store of a scene, and what can be done to it.

use std::collections::HashMap;

use redis::cmd;

use crate::support::{
    FaultProxy, Offset, RedisCluster, RedisClusterOptions, RedisSentinel, RedisSentinelOptions, RedisServer,
    RedisServerOptions,
};

/// A kind of deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deployment {
    /// One server.
    Single,
    /// One server, behind a network that can fail.
    Network,
    /// A primary with two replicas, three Sentinels.
    Sentinel,
    /// The same of Redis 6.2, the oldest that is supported.
    OldSentinel,
    /// Three primaries with a replica each.
    Cluster,
}

/// A running store.
pub(crate) enum Deployed {
    Single(RedisServer),
    Network(FaultProxy, RedisServer),
    Sentinel(RedisSentinel),
    Cluster(RedisCluster),
}

/// What the sidecars connect as: what an administrator does to this user does not lock the test out.
const USER: &str = "side:secret";

/// What it may do, and what Sentinels' and clusters' clients ask for besides.
const MAY: &str = "user side on >secret ~ss:* resetchannels &ss:* +@all -@dangerous +info +role +cluster";

/// A server that was killed comes back with what it had acknowledged.
const DURABLE: &str = "appendonly yes";

/// An entry as an independent reader finds it: its offset and fields.
pub(crate) type Stored = (Offset, HashMap<String, String>);

impl Deployment {
    /// Starts it. The clock of the primaries is `ahead` of those of their replicas.
    pub(crate) async fn start(self, ahead: std::time::Duration) -> Deployed {
        let server = || RedisServerOptions::default().directive(MAY).directive(DURABLE);
        match self {
            Deployment::Single => Deployed::Single(server().start()),
            Deployment::Network => {
                let server = server().start();
                Deployed::Network(FaultProxy::to(server.port()).await, server)
            }
            Deployment::Sentinel | Deployment::OldSentinel => {
                let options = RedisSentinelOptions::default().directive(MAY).directive(DURABLE);
                let old = self == Deployment::OldSentinel;
                let options = if old { options.version_6_2() } else { options };
                Deployed::Sentinel(options.clock_ahead(ahead).start().await)
            }
            Deployment::Cluster => {
                let options = RedisClusterOptions::default().directive(MAY).directive(DURABLE);
                Deployed::Cluster(options.clock_ahead(ahead).start().await)
            }
        }
    }
}

impl Deployed {
    /// What `--store` is told.
    pub(crate) fn url(&self) -> String {
        match self {
            Deployed::Single(server) => server.url_as(USER),
            Deployed::Network(proxy, _) => proxy.url().replace("redis://", &format!("redis://{USER}@")),
            Deployed::Sentinel(redis) => redis.url_as(USER),
            Deployed::Cluster(redis) => redis.url_as(USER),
        }
    }

    /// The network before the server.
    pub(crate) fn network(&self) -> &FaultProxy {
        match self {
            Deployed::Network(proxy, _) => proxy,
            _ => panic!("this deployment has no network that can fail"),
        }
    }

    pub(crate) fn cluster(&mut self) -> &mut RedisCluster {
        match self {
            Deployed::Cluster(redis) => redis,
            _ => panic!("no cluster"),
        }
    }

    /// Which server has the keys of a session now.
    pub(crate) async fn primary_of(&self, session: &str) -> usize {
        match self {
            Deployed::Single(_) | Deployed::Network(..) => 0,
            Deployed::Sentinel(redis) => redis.primary().await,
            Deployed::Cluster(redis) => redis.primary_of(redis.slot_of(&log_key(session)).await).await,
        }
    }

    pub(crate) fn server(&self, i: usize) -> &RedisServer {
        match self {
            Deployed::Single(server) | Deployed::Network(_, server) => server,
            Deployed::Sentinel(redis) => redis.server(i),
            Deployed::Cluster(redis) => redis.node(i),
        }
    }

    pub(crate) fn server_mut(&mut self, i: usize) -> &mut RedisServer {
        match self {
            Deployed::Single(server) | Deployed::Network(_, server) => server,
            Deployed::Sentinel(redis) => redis.server_mut(i),
            Deployed::Cluster(redis) => redis.node_mut(i),
        }
    }

    /// Waits until a deployment of several servers is whole again.
    pub(crate) async fn settled(&self) {
        match self {
            Deployed::Single(_) | Deployed::Network(..) => {}
            Deployed::Sentinel(redis) => redis.settled().await,
            Deployed::Cluster(redis) => redis.settled().await,
        }
    }

    /// A session's log, read with a client that knows nothing of Sidestream.
    pub(crate) async fn log(&self, session: &str) -> Vec<Stored> {
        let mut client = self.server(self.primary_of(session).await).client().await;
        let (mut entries, mut from) = (Vec::new(), "-".to_owned());
        loop {
            let range = (log_key(session), &from, "+", "COUNT", 500);
            let page: Vec<(String, Vec<(String, String)>)> =
                cmd("XRANGE").arg(range).query_async(&mut client).await.unwrap();
            let Some((last, _)) = page.last() else { return entries };
            from = format!("({last}");
            entries.extend(page.into_iter().map(|(id, fields)| (id.parse().unwrap(), fields.into_iter().collect())));
        }
    }
}

impl Deployed {
    /// What is left of sessions and runs that have all ended: active runs that are none, and keys for ever.
    pub(crate) async fn left_over(&self, sessions: &[String]) -> Vec<String> {
        let mut left = Vec::new();
        for session in sessions {
            let mut client = self.server(self.primary_of(session).await).client().await;
            let active = log_key(session).replace(":log", ":active");
            let runs: Vec<String> = cmd("HKEYS").arg(&active).query_async(&mut client).await.unwrap();
            left.extend(runs.into_iter().map(|run| format!("{active} still has {run}")));
        }
        let primaries = match self {
            Deployed::Single(_) | Deployed::Network(..) => vec![0],
            Deployed::Sentinel(redis) => vec![redis.primary().await],
            Deployed::Cluster(redis) => (0..redis.len()).filter(|i| redis.node(*i).runs()).collect(),
        };
        for primary in primaries {
            let mut client = self.server(primary).client().await;
            let keys: Vec<String> = cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
            for key in keys {
                // In a cluster the keys of a replica are its primary's to speak of.
                let ttl = cmd("PTTL").arg(&key).query_async::<i64>(&mut client).await;
                if ttl.is_ok_and(|ttl| ttl == -1) {
                    left.push(format!("{key} has no end"));
                }
            }
        }
        left
    }
}

pub(crate) fn log_key(session: &str) -> String {
    format!("ss:{{default:{session}}}:log")
}
