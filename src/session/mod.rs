//! The words of the log: ids, offsets, entries and run states.
//!
//! Sans-I/O: this module imports only `bytes`, `serde` and `std`, takes time and randomness as
//! arguments, and never spawns. Everything that writes or reads sessions speaks in these types.

mod after;
mod busy;
mod entry;
mod gap;
mod ids;
mod offset;
mod state;
mod subject;

pub use after::After;
pub use busy::BusyPolicy;
pub use entry::{Entry, Kind, Record};
pub use gap::{Gap, GapReason};
pub use ids::{ClientName, ConnectionId, IdError, InstanceId, RunId, SessionId};
pub use offset::{Offset, OffsetError};
pub use state::{ActiveRun, RunState, Terminal};
pub use subject::Subject;
