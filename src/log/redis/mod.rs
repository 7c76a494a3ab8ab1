//! The log on Redis Streams: one server, 6.2 or newer, `redis://` or `rediss://`.
//!
//! Every write of a session is one script, one round trip: a repeat finds out what an earlier
//! attempt has stored. What is stored, and how other programs read it, is in
//! `docs/store-layout.md`; the scripts stand in `scripts/`, each with its arguments and answers.
//!
//! ```text
//! store       RedisLog, the contract's operations        options     what the operator says
//! append open takeover cancel queue read bounds leases claims   one operation (or noun) each
//! presence subjects   who is here, how far users have read; whose sessions are
//! commands    what is said to an instance                mailbox     what our own instances have heard
//! supervisor  the connection: alive, or known to be down  server     what it is connected to
//! listener    the pub/sub connection                      follow     who follows which session
//! keys fields push notes scripts                          names, entries, pushes, Lua
//! ```
//!
//! Must never: give an answer that Redis did not give (a timeout is `Unavailable`, never a
//! failure), use a key that is not in `keys`, or let a caller wait for a connection.
//!
//! Seams: all keys of a session share the hash tag `{default:<session>}` and are declared to their
//! script; only the supervisor and the listener know what a connection is. Cluster and Sentinel
//! change those two.

mod append;
mod backoff;
mod bounds;
#[cfg(test)]
mod branches;
mod cancel;
mod claims;
mod commands;
mod fields;
mod floor;
mod follow;
mod gap;
mod keys;
mod leases;
mod listener;
mod mailbox;
mod notes;
mod open;
mod options;
mod presence;
mod push;
mod queue;
mod read;
mod scripts;
mod server;
mod store;
mod subjects;
mod supervisor;
mod takeover;

pub use options::{RedisOptions, RefusedStore};
pub use store::RedisLog;
