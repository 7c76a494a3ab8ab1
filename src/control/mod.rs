//! Live control: what clients ask of runs, from any device, through any instance. Commands travel
//! the way back: `gateway` → here → the run's owner → the upstream.
//!
//! Must never say that something happened before the log or the owner has said so, never begin what
//! no log has, and never keep a client's credentials longer than its request lasts. A closed
//! connection means nothing here.

mod calling;
mod cancelling;
mod client;
mod keys;
mod plain;
mod queueing;
mod request;
mod root;
mod sending;
mod settling;
mod steering;

pub use calling::{Calls, Origin, requested, taken_along};
pub use client::Client;
pub use plain::{ending, plain};
pub use root::{Control, ControlLimits};
