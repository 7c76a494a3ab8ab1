//! What we know of the wire formats of answers: where their text grows, how they end, how they fail. A
//! dialect is data: a [`Dialect`] is read from TOML, the built-in ones from `builtin/*.toml`, custom ones
//! from `[[dialect]]` in the configuration; both have the same form.
//!
//! Nothing here changes what the direct caller gets. A stream of an unknown dialect is a sequence of opaque
//! events whose end is the close.
//!
//! Sans-I/O: takes texts, gives verdicts; no clock, no task.

mod builtin;
pub mod compact;
mod description;
mod dialects;
mod format;
mod path;

pub use description::{Call, Cumulative, Delta, Dialect, Mark, Said, TextKind, Usage};
pub use dialects::{DialectError, Dialects};
pub use format::Format;
pub use path::{Path, PathError};
