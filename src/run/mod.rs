//! Runs: the owner task that reads one upstream answer to its end, whoever is or is not connected,
//! and appends it to the log. Durable before delivered: the direct caller's bytes are released
//! when the log has acknowledged the events that they carry (the exception, a slow or absent
//! store, is `owner`'s eager mode, and marks the run).
//!
//! A run never outlives its upstream answer, never has two terminals, and never waits for a
//! reader.

mod books;
mod broken_off;
mod call;
mod caller;
mod commands;
mod commit;
mod dropped;
mod ghosts;
mod lease;
mod orders;
mod owner;
mod remembered;
mod runs;
mod seats;
mod started;
mod steering;
mod tagged;
mod takeover;

pub use broken_off::BrokenOff;
pub use call::{Answer, Call, CallFailed, SideAnswer, SideCall, Values};
pub use caller::CallerBody;
pub use dropped::Dropped;
pub use lease::{LEASE, keep_lease};
pub use orders::Driven;
pub use owner::{Ending, RunSpec, Tagging};
pub use runs::{Begun, Runs, RunsSettings, StartQueued};
pub use seats::Seat;
pub use started::Started;
pub use tagged::TaggedId;

#[cfg(test)]
mod fixtures;
