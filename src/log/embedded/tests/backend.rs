//! A disk that fails on command, and keeps only what was synced when its power is cut.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

/// A disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<State>);

#[derive(Debug, Default)]
struct State {
    bytes: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    /// Calls that change something and still succeed; the others say that the disk is full.
    lasts: AtomicU64,
    syncs: AtomicU64,
    /// Reads that fail.
    unreadable: AtomicU64,
}

impl Disk {
    /// An empty disk that works.
    pub(super) fn new() -> Self {
        let disk = Disk::default();
        disk.works();
        disk
    }

    pub(super) fn works(&self) {
        self.0.lasts.store(u64::MAX, Ordering::SeqCst);
    }

    /// Lets `calls` more calls succeed, then no more.
    pub(super) fn fails_after(&self, calls: u64) {
        self.0.lasts.store(calls, Ordering::SeqCst);
    }

    /// Lets the next `calls` reads fail.
    pub(super) fn cannot_read(&self, calls: u64) {
        self.0.unreadable.store(calls, Ordering::SeqCst);
    }

    /// How often it was told to make everything durable.
    pub(super) fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::SeqCst)
    }

    /// Another disk, with what this one would have after its power is cut.
    pub(super) fn after_a_power_cut(&self) -> Disk {
        let disk = Disk::new();
        let synced = self.0.synced.lock().unwrap().clone();
        *disk.0.bytes.lock().unwrap() = synced.clone();
        *disk.0.synced.lock().unwrap() = synced;
        disk
    }

    fn change(&self) -> io::Result<()> {
        let one_less = |lasts: u64| if lasts == u64::MAX { Some(lasts) } else { lasts.checked_sub(1) };
        match self.0.lasts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on the test's disk")),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let one_less = |calls: u64| calls.checked_sub(1);
        if self.0.unreadable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Err(io::Error::other("a bad sector of the test's disk"));
        }
        let bytes = self.0.bytes.lock().unwrap();
        let from = offset as usize;
        out.copy_from_slice(bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change()?;
        self.0.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change()?;
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        let bytes = self.0.bytes.lock().unwrap().clone();
        *self.0.synced.lock().unwrap() = bytes;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change()?;
        let mut bytes = self.0.bytes.lock().unwrap();
        let from = offset as usize;
        bytes.get_mut(from..from + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}
