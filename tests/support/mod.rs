//! What the tests of the binary stand on: real processes, real sockets, and clients that check what
//! they read while they read it.
//!
//! Nothing here uses code of Sidestream: a client that shares the server's idea of an offset or of
//! an event would share its mistakes. Everything waits for conditions, with [`within`] as the cap.

mod agent;
#[allow(dead_code, unreachable_pub, reason = "shared with other test binaries")]
mod fault_proxy;
mod http;
mod message;
#[allow(dead_code, reason = "used by some of the test binaries")]
mod player;
mod process;
mod recordings;
#[allow(dead_code, unreachable_pub, reason = "shared with other test binaries")]
mod redis_cluster;
#[allow(dead_code, unreachable_pub, reason = "shared with other test binaries")]
mod redis_sentinel;
#[allow(dead_code, unreachable_pub, reason = "shared with other test binaries")]
mod redis_server;
mod scripted;
mod sidecar;
mod slice;
mod sse;
mod stage;
mod store;
mod wait;
mod websocket;

pub(crate) use agent::Agent;
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use fault_proxy::{FaultProxy, Towards};
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use http::Upload;
pub(crate) use http::{Answer, Ask, End};
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use message::Offset;
pub(crate) use message::{Message, events_of, terminal_of};
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use player::{Ending, Play, Player, ROUTES};
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use process::Process;
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use recordings::whole_part;
pub(crate) use recordings::{Event, Recording, events_in, events_in_after, recordings};
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use redis_cluster::{ClusterFailover, RedisCluster, RedisClusterOptions};
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use redis_sentinel::{RedisSentinel, RedisSentinelOptions};
pub(crate) use redis_server::{RedisServer, RedisServerOptions, free_port};
pub(crate) use scripted::{Asked, ScriptedAgent};
#[allow(unused_imports, reason = "used by some of the test binaries")]
pub(crate) use sidecar::{Sidecar, SidecarOptions};
pub(crate) use sse::SseClient;
pub(crate) use stage::{Run, Stage};
pub(crate) use store::{RunningStore, Store};
pub(crate) use wait::{until, within};
pub(crate) use websocket::{Refused, WebSocket, handshake};
