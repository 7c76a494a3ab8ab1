//! The promise of a drop-in: whatever is not an intercepted stream passes through unchanged, and
//! what goes wrong is said as it is. Byte for byte over real sockets.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "a test that cannot go on fails here")]

mod bodies;
mod expect;
mod failures;
mod heads;
mod listener;
mod smuggling;
mod support;
mod upgrades;
mod versions;
