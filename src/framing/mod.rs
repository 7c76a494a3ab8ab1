//! How the upstream's answer is cut into events: Server-Sent Events, or one of the streams that are not
//! (lines of JSON, lines with a prefix, one JSON array). What an event means is not known here.
//!
//! Sans-I/O, like `sse`: bytes in, [frames](crate::sse::Frame) out, no clock, no task.

mod kind;

pub use kind::Framing;
