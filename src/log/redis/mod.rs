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
//! rows        lists of sessions
//! target deployment   the options, checked; where the servers are (as crate::redis_url reads it)
//! dialect     TLS where we speak none, and the other way round
//! servers     which server is asked                      slots      which has what
//! node        one of them: there, or known to be away; where: whereabouts
//! link        the connections to it                        server     what it is
//! refusals    a server that answers and will not write
//! listener    the pub/sub connection to one              follow     who follows which session
//! keys fields push notes scripts                          names, entries, pushes, Lua
//! ```
//!
//! Must never: give an answer that Redis did not give (a timeout is `Unavailable`, never a
//! failure), use a key that is not in `keys`, or let a caller wait for a connection.
//!
//! Seams: all keys of a session share the hash tag `{default:<session>}` and are declared to their
//! script; only `node` and `listener` know what a connection is, and only `servers` that there may be several.

mod append;
mod backoff;
mod bounds;
#[cfg(test)]
mod branches;
mod cancel;
mod claims;
mod cluster;
mod commands;
mod deployment;
mod dialect;
mod fields;
mod floor;
mod follow;
mod gap;
mod keys;
mod leases;
mod link;
mod listener;
mod mailbox;
mod node;
mod notes;
mod open;
mod options;
mod presence;
mod push;
mod queue;
mod read;
mod refusals;
mod replication;
mod rows;
mod scripts;
mod sentinel;
mod server;
mod servers;
mod slots;
mod store;
mod subjects;

mod takeover;
mod target;
mod whereabouts;

pub use options::{Ack, ClientCertificate, Password, RedisOptions, RefusedStore};
pub use store::RedisLog;
