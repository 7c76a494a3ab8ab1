//! The log on Redis: what only a real server can do to us. The contract itself is tested by
//! `log_contract`, on every store.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on fails here")]

#[path = "../support/redis_server.rs"]
mod redis_server;

mod actors;
mod commanding;
mod connecting;
mod forking;
mod full;
mod layout;
mod losing;
mod pushing;
mod retaining;
