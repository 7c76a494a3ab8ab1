//! The log on local disk, in process.
