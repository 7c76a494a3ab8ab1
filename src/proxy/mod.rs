//! The transparent reverse proxy: forwards a request to the upstream and streams its answer back.
//!
//! Whatever is not an intercepted stream passes through unchanged. This module adds nothing that a
//! client can see, must never buffer a body (unless a session rule needs the request's), never
//! ends a broken answer politely, and never sends a request twice that may have been begun.
//!
//! Two things it cannot do, because hyper's HTTP/1 server cannot: pass on 1xx answers other than
//! `100 Continue` (RFC 9110 §15.2 wants them forwarded), and send trailers that `Trailer` did not
//! announce, or that the client did not ask for with `TE: trailers` (RFC 9110 §6.5.1 allows that).

mod ambiguous;
mod answer;
mod buffer;
mod coding;
mod decompress;
mod dial;
mod expect;
mod extract;
mod failure;
mod forwarded;
mod headers;
mod identity;
mod passthrough;
mod pool;
mod target;
mod upgrade;
mod upstream;

pub use answer::{UpstreamBody, is_close_delimited};
pub use buffer::buffer;
pub use decompress::{Codings, DecodeError, Decoded, UnknownCoding};
pub use failure::{SetupError, UpstreamError};
pub use forwarded::Forwarding;
pub use identity::{Awaited, Basis, Identity, Named, identify, needs_body, sessions_named, tell_run};
pub use passthrough::{AcceptEncoding, Passthrough, problem};
pub use target::Target;
pub use upgrade::is_sidestream_upgrade;
pub use upstream::Upstream;
