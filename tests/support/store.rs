//! The two kinds of store.

use std::path::PathBuf;

use super::redis_cluster::RedisCluster;
use super::redis_server::RedisServer;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// On disk, in the sidecar's own process.
    Embedded,
    /// A Redis server of the test's own.
    Redis,
}

/// A store that lives as long as its test.
pub(crate) enum RunningStore {
    /// A folder.
    Embedded(tempfile::TempDir),
    /// A server.
    Redis(RedisServer),
    /// Servers that divide sessions among them.
    #[allow(dead_code, reason = "used by some of the test binaries")]
    Cluster(RedisCluster),
}

impl Store {
    /// An empty store of this kind.
    pub(crate) fn start(self) -> RunningStore {
        match self {
            Store::Embedded => RunningStore::Embedded(tempfile::tempdir().unwrap()),
            Store::Redis => RunningStore::Redis(RedisServer::start()),
        }
    }
}

impl RunningStore {
    /// What `--store` is told.
    pub(crate) fn url(&self) -> String {
        match self {
            RunningStore::Embedded(_) => format!("file:{}", self.dir().display()),
            RunningStore::Redis(server) => server.url(),
            RunningStore::Cluster(cluster) => cluster.url(),
        }
    }

    /// The folder of an embedded store.
    pub(crate) fn dir(&self) -> PathBuf {
        match self {
            RunningStore::Embedded(dir) => dir.path().join("store"),
            _ => panic!("Redis is not in a folder of ours"),
        }
    }

    /// The server of a Redis store.
    pub(crate) fn redis(&mut self) -> &mut RedisServer {
        match self {
            RunningStore::Redis(server) => server,
            _ => panic!("not a Redis server"),
        }
    }

    /// The servers of a cluster.
    #[allow(dead_code, reason = "used by some of the test binaries")]
    pub(crate) fn cluster(&mut self) -> &mut RedisCluster {
        match self {
            RunningStore::Cluster(cluster) => cluster,
            _ => panic!("not a cluster"),
        }
    }
}
