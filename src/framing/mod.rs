//! How the upstream's answer is cut into events: Server-Sent Events, or one of the streams that are not
//! (lines of JSON, lines with a prefix, one JSON array). What an event means is not known here.
//!
//! The [`Decoder`] hands every byte on as it came, cut only where an event ends; the [`Encoder`] writes events
//! again, for replays. Sans-I/O, like `sse`: bytes in, [frames](crate::sse::Frame) out, no clock, no task.

mod decode;
mod elements;
mod encode;
mod kind;
mod lines;

pub use decode::Decoder;
pub use encode::Encoder;
pub use kind::Framing;
