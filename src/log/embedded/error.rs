//! What can go wrong with an embedded log.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::log::Unavailable;

/// Why an embedded log cannot be opened. Every message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store in {} is in use{}; stop that process, or name another place with --store file:DIR", dir.display(), Holder(*pid))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, where that can be read.
        pid: Option<u32>,
    },
    /// The directory or the file cannot be created or written.
    #[error("the store in {} cannot be written: {source}; make it writable, or name another place with --store file:DIR (--store memory: keeps nothing on disk)", dir.display())]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer version of this program wrote it.
    #[error("the store in {} has format {found}, this version knows formats up to {known}; use the newer version, or name another place with --store file:DIR", dir.display())]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// The format that was found.
        found: u64,
        /// The newest format that this version knows.
        known: u64,
    },
    /// It is not a store, or it is damaged.
    #[error("the store in {} cannot be read: {detail}; restore or remove it, or name another place with --store file:DIR", dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, " by process {pid}"),
            None => write!(f, " by another process"),
        }
    }
}

/// Why an operation on an open log failed. Its outcome is unknown to the caller.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The database or the disk below it failed.
    #[error("{0}")]
    Database(redb::Error),
    /// A stored value cannot be read.
    #[error("the stored {0} is damaged")]
    Damaged(&'static str),
    /// The database is not open (closed, or being opened again after a failure).
    #[error("{0}")]
    Away(String),
}

impl From<Fault> for Unavailable {
    fn from(fault: Fault) -> Self {
        Unavailable::new(fault.to_string())
    }
}

macro_rules! from_redb {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                Fault::Database(error.into())
            }
        })+
    };
}

from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError);
