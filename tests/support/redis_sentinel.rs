//! A primary and two replicas that three Sentinels watch: real processes on loopback.

use std::time::Duration;

use super::redis_server::{RedisServer, RedisServerOptions, try_ask, until};

/// The name under which the Sentinels know the primary.
pub const PRIMARY_NAME: &str = "mymaster";

/// How many replicas there are.
const REPLICAS: usize = 2;

/// How many Sentinels there are; two of them decide.
const SENTINELS: usize = 3;

/// How such a deployment is started.
#[derive(Clone, Debug, Default)]
pub struct RedisSentinelOptions {
    server: RedisServerOptions,
    sentinel: RedisServerOptions,
    clock_ahead: Duration,
}

/// A running deployment; its processes are gone when it is dropped.
#[derive(Debug)]
pub struct RedisSentinel {
    // Sentinels go first: they would make something of the end of the others.
    sentinels: Vec<RedisServer>,
    /// 0 began as the primary.
    servers: Vec<RedisServer>,
}

impl RedisSentinelOptions {
    /// A line of every server's configuration file.
    pub fn directive(mut self, line: impl Into<String>) -> Self {
        self.server = self.server.directive(line);
        self
    }

    /// All processes of the oldest version that is supported. Replicas are noticed more slowly.
    pub fn version_6_2(mut self) -> Self {
        self.server = self.server.version_6_2();
        self.sentinel = self.sentinel.version_6_2();
        self
    }

    /// A line of every Sentinel's configuration file.
    pub fn sentinel_directive(mut self, line: impl Into<String>) -> Self {
        self.sentinel = self.sentinel.directive(line);
        self
    }

    /// The clock of the first primary shows a later time than those of its replicas.
    pub fn clock_ahead(mut self, by: Duration) -> Self {
        self.clock_ahead = by;
        self
    }

    /// Starts all processes and waits until replicas are in sync and the Sentinels know each other.
    pub async fn start(self) -> RedisSentinel {
        let common = self.server.directive("repl-diskless-sync-delay 0");
        let primary = common.clone().clock_ahead(self.clock_ahead).start();
        let of = format!("replicaof 127.0.0.1 {}", primary.port());
        let mut servers = vec![primary];
        servers.extend((0..REPLICAS).map(|_| common.clone().directive(of.as_str()).start()));
        let watching = [
            format!("sentinel monitor {PRIMARY_NAME} 127.0.0.1 {} 2", servers[0].port()),
            format!("sentinel down-after-milliseconds {PRIMARY_NAME} 1000"),
            // Also how long a failover that went wrong keeps the next one from beginning, twice.
            format!("sentinel failover-timeout {PRIMARY_NAME} 3000"),
            format!("sentinel parallel-syncs {PRIMARY_NAME} {REPLICAS}"),
        ];
        let watch = watching.into_iter().fold(self.sentinel.sentinel(), RedisServerOptions::directive);
        let sentinels: Vec<_> = (0..SENTINELS).map(|_| watch.clone().start()).collect();
        for sentinel in &sentinels {
            // Replicas are looked at every 10 s by default, and one that was not looked at is not promoted.
            let _: Option<String> = try_ask(sentinel, &["SENTINEL", "DEBUG", "info-period", "500"]).await;
            let _: Option<String> = try_ask(sentinel, &["SENTINEL", "DEBUG", "publish-period", "500"]).await;
        }
        let deployment = RedisSentinel { sentinels, servers };
        deployment.settled().await;
        deployment
    }
}

impl RedisSentinel {
    /// A deployment with defaults.
    pub async fn start() -> Self {
        RedisSentinelOptions::default().start().await
    }

    /// Its URL with all Sentinels, without credentials.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// Its URL for `user:password` of the servers.
    pub fn url_as(&self, credentials: &str) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
        let at = if credentials.is_empty() { "" } else { "@" };
        format!("redis-sentinel://{credentials}{at}{}/?master={PRIMARY_NAME}", sentinels.join(","))
    }

    /// One of the servers: 0 began as the primary.
    pub fn server(&self, i: usize) -> &RedisServer {
        &self.servers[i]
    }

    /// The same, to kill it or to start it again.
    pub fn server_mut(&mut self, i: usize) -> &mut RedisServer {
        &mut self.servers[i]
    }

    /// One of the Sentinels, to kill it or to start it again.
    pub fn sentinel_mut(&mut self, i: usize) -> &mut RedisServer {
        &mut self.sentinels[i]
    }

    /// Which server is the primary: all Sentinels that run say so, and so does it. Waits while they differ.
    pub async fn primary(&self) -> usize {
        until("a primary on which the Sentinels agree", async || self.agreed().await).await
    }

    /// Makes a replica the primary; all agree when this returns. Which one it is.
    pub async fn fail_over(&self) -> usize {
        let old = self.primary().await;
        until("the failover", async || {
            // Refused while one is under way, or while no replica is known to be good.
            let asked = ["SENTINEL", "FAILOVER", PRIMARY_NAME];
            let sentinel = self.sentinels.iter().find(|sentinel| sentinel.runs()).expect("one runs");
            try_ask::<String>(sentinel, &asked).await
        })
        .await;
        self.another_than(old).await
    }

    /// Waits until another server than `old` is the primary, by whatever reason.
    pub async fn another_than(&self, old: usize) -> usize {
        until("another primary", async || self.agreed().await.filter(|primary| *primary != old)).await
    }

    /// Waits until all that runs knows each other and is in sync.
    pub async fn settled(&self) {
        until("Sentinels and replicas that know each other", async || {
            let primary = self.agreed().await?;
            for (i, server) in self.servers.iter().enumerate().filter(|(_, server)| server.runs()) {
                let info: String = try_ask(server, &["INFO", "replication"]).await?;
                if i != primary && !info.contains("master_link_status:up") {
                    return None;
                }
            }
            let replicas = self.servers.iter().filter(|server| server.runs()).count() - 1;
            let others = self.sentinels.iter().filter(|sentinel| sentinel.runs()).count() - 1;
            for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.runs()) {
                let info: String = try_ask(sentinel, &["INFO", "sentinel"]).await?;
                // master0:name=mymaster,status=ok,address=…,slaves=2,sentinels=3
                let field = |name: &str| -> Option<usize> {
                    let (_, rest) = info.split_once(&format!(",{name}="))?;
                    rest.split([',', '\r']).next()?.parse().ok()
                };
                if !info.contains("status=ok") || field("slaves")? < replicas || field("sentinels")? < others + 1 {
                    return None;
                }
                let slaves: Vec<Vec<String>> = try_ask(sentinel, &["SENTINEL", "REPLICAS", PRIMARY_NAME]).await?;
                let fine = |slave: &Vec<String>| {
                    let link = slave.iter().position(|field| field == "master-link-status");
                    link.is_some_and(|at| slave[at + 1] == "ok")
                };
                if slaves.iter().filter(|slave| fine(slave)).count() < replicas {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    async fn agreed(&self) -> Option<usize> {
        let mut agreed = None;
        for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.runs()) {
            let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY_NAME];
            let (_, port): (String, u16) = try_ask(sentinel, &asked).await?;
            let primary = self.servers.iter().position(|server| server.port() == port)?;
            if agreed.is_some_and(|before| before != primary) {
                return None;
            }
            agreed = Some(primary);
        }
        let info: String = try_ask(&self.servers[agreed?], &["INFO", "replication"]).await?;
        agreed.filter(|_| info.contains("role:master"))
    }
}
