//! The protocol's messages as text: what clients may say (`client`), what the server says
//! (`server`).
//!
//! Sans-I/O: no sockets, no clock, no tasks. Nobody else in the crate writes or reads the JSON of
//! the protocol.

mod client;
mod code;
mod frame;
mod server;

pub use client::{Attach, ClientMessage, Reference, Rejected, after_from_query};
pub use code::Code;
pub use frame::{entry_frame, with_field};
pub use server::ServerMessage;
