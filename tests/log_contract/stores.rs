//! The stores that the suite runs on.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sidestream::log::embedded::{EmbeddedLog, EmbeddedOptions, Location};
use sidestream::log::redis::{RedisLog, RedisOptions};
use sidestream::log::{Log, Retention};

use crate::redis_server::RedisServerOptions;

/// Who the suite is on Redis: what `docs/store-layout.md` says is enough for a user is enough for all of it.
const USER: &str = "user side on >secret ~ss:* resetchannels &ss:* +@all -@dangerous +info";

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Memory,
    Disk,
    /// A Redis server of the test's own.
    Redis,
    /// The same, of the oldest version that is supported.
    #[allow(dead_code, reason = "used by some of the test binaries")]
    Redis62,
    /// The cluster at [`CLUSTER`], under a prefix of the test's own.
    Cluster,
}

/// The name of a case, and what runs it.
#[allow(dead_code, reason = "used by some of the test binaries")]
pub type Case = (&'static str, fn() -> std::pin::Pin<Box<dyn Future<Output = ()>>>);

/// The address of the cluster that cases share.
#[allow(dead_code, reason = "used by some of the test binaries")]
pub static CLUSTER: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Makes a test of each case for every store. To add a store, add a line.
macro_rules! on_every_store {
    ($($case:ident),+ $(,)?) => {
        on_every_store!(@ memory Memory $($case)+);
        on_every_store!(@ disk Disk $($case)+);
        on_every_store!(@ redis Redis $($case)+);
        on_every_store!(@ redis_6_2 Redis62 $($case)+);
        /// The cases of this file on one cluster that all share, each under a prefix of its own.
        #[allow(dead_code, reason = "used by some of the test binaries")]
        pub fn on_a_cluster() -> Vec<crate::stores::Case> {
            vec![$(
                (concat!(module_path!(), "::", stringify!($case)), || Box::pin($case(crate::stores::Store::Cluster)))
            ),+]
        }
    };
    (@ $name:ident $store:ident $($case:ident)+) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::stores::Store::$store).await;
                }
            )+
        }
    };
}

impl Store {
    /// An empty store of this kind, which keeps everything that a case appends.
    pub async fn open(self) -> OpenStore {
        self.open_with(Retention::default()).await
    }

    /// An empty store of this kind.
    pub async fn open_with(self, retention: Retention) -> OpenStore {
        match self {
            Store::Memory => embedded(Location::Memory, retention, Box::new(())).await,
            Store::Disk => {
                let dir = tempfile::tempdir().unwrap();
                embedded(Location::Dir(dir.path().into()), retention, Box::new(dir)).await
            }
            Store::Cluster => {
                static NUMBER: AtomicU64 = AtomicU64::new(0);
                let key_prefix = format!("case-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
                let url = CLUSTER.get().expect("a cluster was started");
                let options = RedisOptions { retention, key_prefix, ..RedisOptions::new(url) };
                let log = RedisLog::connect(options.clone()).await.expect("the cluster is usable");
                OpenStore { log, redis: Some(options), _keep: Box::new(()) }
            }
            Store::Redis | Store::Redis62 => {
                let options = RedisServerOptions::default().directive(USER);
                let server = match self {
                    Store::Redis62 => options.version_6_2().start(),
                    _ => options.start(),
                };
                let options = RedisOptions { retention, ..RedisOptions::new(server.url_as("side:secret")) };
                let log = RedisLog::connect(options.clone()).await.expect("the server is usable");
                OpenStore { log, redis: Some(options), _keep: Box::new(server) }
            }
        }
    }
}

/// A store, open for the length of one test.
pub struct OpenStore {
    log: Arc<dyn Log>,
    /// How another instance connects, where there can be one.
    redis: Option<RedisOptions>,
    /// What must live as long as the store: a server process, a temporary directory.
    _keep: Box<dyn Any + Send + Sync>,
}

impl OpenStore {
    /// A handle for another task.
    pub fn handle(&self) -> Arc<dyn Log> {
        self.log.clone()
    }

    /// The log as another instance has it: over a connection of its own, or the same one where only
    /// one process can open the store.
    #[allow(dead_code, reason = "used by some of the test binaries")]
    pub async fn another_instance(&self) -> Arc<dyn Log> {
        match self.redis.clone() {
            Some(options) => RedisLog::connect(options).await.expect("the server is usable"),
            None => self.log.clone(),
        }
    }
}

impl Deref for OpenStore {
    type Target = dyn Log;

    fn deref(&self) -> &Self::Target {
        &*self.log
    }
}

async fn embedded(location: Location, retention: Retention, keep: Box<dyn Any + Send + Sync>) -> OpenStore {
    let options = EmbeddedOptions { location, retention, total_bytes: 1 << 30, sweep_every: Duration::from_millis(50) };
    OpenStore { log: EmbeddedLog::open(options).await.unwrap(), redis: None, _keep: keep }
}
