//! What we know of the wire formats of answers: where their text grows, how they end, how they fail. A
//! dialect is data: a [`Dialect`] is read from TOML, the built-in ones from `builtin/*.toml`, custom ones
//! from `[[dialect]]` in the configuration; both have the same form.
//!
//! `description` is what is known of one; `dialects` are all of a configuration, and recognise a run's from its
//! first events. `observer` looks at every event of a run, by `watch` (marks and counts, prepared as `sign`s, so
//! that the JSON of few events is read), which finds `places` in one reading.
//!
//! Nothing here changes what the direct caller gets. A stream of an unknown dialect is a sequence of opaque
//! events whose end is the close.
//!
//! Sans-I/O: takes texts, gives verdicts; no clock, no task.

mod builtin;
mod check;
pub mod compact;
mod description;
mod dialects;
mod format;
mod observer;
mod path;
mod places;
mod sign;
mod text;
mod texts;
mod watch;

pub use builtin::builtin;
pub use description::{Call, Cumulative, Delta, Dialect, Mark, Said, TextKind, Usage};
pub use dialects::{DialectError, Dialects, RECOGNISED_WITHIN};
pub use format::Format;
pub use observer::{Observed, Observer};
pub use path::{Path, PathError};
pub use text::Text;
pub use texts::Texts;
pub use watch::Tokens;
