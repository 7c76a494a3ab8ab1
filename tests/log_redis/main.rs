//! The log on Redis: what only a real server can do to us. The contract itself is tested by
//! `log_contract`, on every store.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on fails here")]

#[path = "../support/redis_server.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod redis_server;

#[path = "../support/redis_cluster.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod redis_cluster;
#[path = "../support/redis_sentinel.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod redis_sentinel;

mod actors;
mod clusters;
mod commanding;
mod connecting;
mod forking;
mod full;
mod layout;
mod losing;
mod mistaken;
mod pushing;
mod replicating;
mod retaining;
mod secured;
mod sentinels;
