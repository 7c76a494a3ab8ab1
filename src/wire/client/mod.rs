//! What a client may say, over WebSocket or in the body of a call: one file per group of messages.

mod attach;
mod control;
mod field;
mod message;
mod sharing;

pub use attach::{Attach, after_from_query, is_compact, rollup_window};
pub use control::{Cancel, RunName, SendRun, Steer, Target};
pub use message::{ClientMessage, Reference, Rejected};
pub use sharing::{Presence, Publish, ReadTo};
