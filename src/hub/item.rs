//! An entry in memory, with its frame encoded once for all subscribers.

use std::sync::{Arc, OnceLock};

use bytestring::ByteString;

use crate::session::{Entry, Offset};

/// An entry shared by all subscribers.
#[derive(Debug)]
pub struct Item {
    entry: Arc<Entry>,
    frame: OnceLock<ByteString>,
}

impl Item {
    /// Wraps an entry that the log has acknowledged.
    pub fn new(entry: Arc<Entry>) -> Arc<Self> {
        Arc::new(Item { entry, frame: OnceLock::new() })
    }

    /// The entry.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its address.
    pub fn offset(&self) -> Offset {
        self.entry.offset
    }

    /// The entry's frame; `encode` runs at most once, whoever asks first.
    pub fn frame(&self, encode: impl FnOnce(&Entry) -> String) -> &ByteString {
        self.frame.get_or_init(|| encode(&self.entry).into())
    }

    /// What it counts towards memory bounds, with room for the frame.
    pub fn weight(&self) -> usize {
        2 * self.entry.record.size() + 256
    }
}
