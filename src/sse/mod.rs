//! Server-Sent Events: cutting a byte stream into events, and writing events back.
//!
//! The [`Decoder`] reads by the rules of the WHATWG HTML standard (section 9.2.6, "Interpreting an
//! event stream") and at the same time hands every byte on, cut only where an event ends: what the
//! direct caller gets is what the upstream sent, not what we would have written. [`encode()`] is the
//! other direction, the canonical framing for replays and for our own streams.
//!
//! Sans-I/O: imports only `bytes`, `bytestring`, `memchr` and `std`, never reads a clock, never
//! spawns. It never looks into `data` (that is `dialect`'s), and never changes a byte of what it
//! hands on.

mod block;
mod carry;
mod decode;
mod encode;
mod frame;
mod line;
mod oversize;

pub use decode::Decoder;
pub use encode::encode;
pub use frame::{Event, Frame, Tail};
pub(crate) use line::text;
