//! The open database: how it is opened, who may use it now, and what happens when it fails.

use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend};

use super::directory::Directory;
use super::error::{Fault, OpenError};
use super::options::Location;
use super::tables::{self, Tables};

/// Memory for pages of the database; the system caches the file as well.
const CACHE_BYTES: usize = 64 << 20;

/// Where the database is, and how it is opened there. Holds the lock of the directory.
pub(super) enum Place {
    /// In this directory.
    Disk(Directory),
    /// In memory. It cannot be opened twice.
    Memory,
    /// On a backend of the tests.
    #[cfg(test)]
    Test(Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send>),
}

impl Place {
    /// Locks the location. It may block.
    pub(super) fn claim(location: &Location) -> Result<Self, OpenError> {
        Ok(match location {
            Location::Dir(path) => Place::Disk(Directory::claim(path)?),
            Location::Memory => Place::Memory,
        })
    }

    /// Opens the database for the first time: checks its format, makes its tables. It may block
    /// for as long as a file that was not closed takes to be checked.
    pub(super) fn open(&self) -> Result<Database, OpenError> {
        let database = match self {
            Place::Disk(directory) => builder(CACHE_BYTES).create(directory.database()),
            Place::Memory => on(redb::backends::InMemoryBackend::new(), CACHE_BYTES),
            #[cfg(test)]
            Place::Test(open) => open(),
        };
        let database = database.map_err(|error| self.refused_by(error.into()))?;
        let refused = |fault: Fault| self.refused_by(fault);
        let read = database.begin_read().map_err(|error| refused(error.into()))?;
        match tables::format(&read).map_err(refused)? {
            Some(found) if found > tables::FORMAT => {
                Err(OpenError::NewerFormat { dir: self.dir(), found, known: tables::FORMAT })
            }
            Some(_) => Ok(database),
            None => prepare(&database).map(|()| database).map_err(refused),
        }
    }

    /// Opens the database again after it failed.
    pub(super) fn open_again(&self) -> Result<Database, Fault> {
        match self {
            Place::Disk(directory) => Ok(builder(CACHE_BYTES).open(directory.database())?),
            Place::Memory => Err(Fault::Away("the store in memory has failed".into())),
            #[cfg(test)]
            Place::Test(open) => Ok(open()?),
        }
    }

    fn dir(&self) -> std::path::PathBuf {
        match self {
            Place::Disk(directory) => directory.path().to_owned(),
            _ => "memory".into(),
        }
    }

    /// Why the database cannot be used here.
    pub(super) fn refused_by(&self, fault: Fault) -> OpenError {
        match fault {
            Fault::Database(redb::Error::Io(source)) if source.kind() != std::io::ErrorKind::InvalidData => {
                OpenError::NotWritable { dir: self.dir(), source }
            }
            Fault::Database(redb::Error::DatabaseAlreadyOpen) => OpenError::InUse { dir: self.dir(), pid: None },
            other => OpenError::Damaged { dir: self.dir(), detail: other.to_string() },
        }
    }
}

/// How a database with so much memory for its pages is opened.
fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

/// A database on this backend.
pub(super) fn on(backend: impl StorageBackend, cache_bytes: usize) -> Result<Database, redb::DatabaseError> {
    builder(cache_bytes).create_with_backend(backend)
}

/// Makes the tables and notes the format.
fn prepare(database: &Database) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    Tables::open(&transaction)?.about.insert("format", tables::FORMAT)?;
    transaction.commit()?;
    Ok(())
}

/// The database that everybody uses now; none while it is closed or has failed.
#[derive(Clone)]
pub(super) struct Slot {
    current: Arc<RwLock<Result<Database, String>>>,
}

impl Slot {
    pub(super) fn new(database: Database) -> Self {
        Slot { current: Arc::new(RwLock::new(Ok(database))) }
    }

    /// Uses the database. It may block on the disk.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        // Nobody panics between taking a database out and putting another in.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        work(current.as_ref().map_err(|why| Fault::Away(why.clone()))?)
    }

    /// Reads a snapshot. It may block on the disk.
    pub(super) fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, Fault> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Takes the database away, once everybody who uses it has finished, and closes it.
    pub(super) fn close(&self, why: String) {
        let closed = std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), Err(why));
        drop(closed);
    }

    pub(super) fn is_open(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_ok()
    }

    pub(super) fn put(&self, database: Database) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Ok(database);
    }
}
