//! How the process exits. Scripts and supervisors rely on these numbers.

use std::process::{ExitCode, Termination};

/// The exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done, or the process was asked to leave and has left in good order.
    Ok = 0,
    /// Something failed while running.
    Runtime = 1,
    /// The command line or the configuration is wrong; nothing was started.
    Usage = 2,
    /// An address to listen on cannot be bound.
    CannotBind = 3,
    /// The store cannot be used as configured: locked, not writable, refused or too new.
    StoreRefused = 4,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}
