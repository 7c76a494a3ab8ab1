//! The protocol's messages as text: what clients may say (`client`), what the server says
//! (`server`, `sharing`).
//!
//! Sans-I/O: no sockets, no clock, no tasks. Nobody else in the crate writes or reads the JSON of
//! the protocol.

mod client;
mod code;
mod frame;
mod outcome;
mod server;
mod sessions;
mod sharing;

pub use client::{
    Attach, Cancel, ClientMessage, Presence, Publish, ReadTo, Reference, Rejected, RunName, SendRun, Steer, Target,
    after_from_query, is_compact, rollup_window,
};
pub use code::Code;
pub use frame::{entry_frame, merged_frame, with_field};
pub use outcome::{CancelledRun, Outcome, QueuedItem, Sent, Steered, Upstream};
pub use server::ServerMessage;
pub use sessions::{SessionLine, session_list};
pub use sharing::{Change, Here, ephemeral_frame, presence_frame, present_frame, queue_frame, read_frame};
