//! An event that is too large to keep: the log says that it was there, how large, and its digest.

use sha2::{Digest, Sha256};

/// The bytes of an event above `limits.event_bytes`, counted and digested as they come.
#[derive(Debug, Default)]
pub struct Dropped {
    hash: Sha256,
    bytes: u64,
}

impl Dropped {
    /// More of its bytes.
    pub fn add(&mut self, raw: &[u8]) {
        self.hash.update(raw);
        self.bytes += raw.len() as u64;
    }

    /// Its size in bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The data of its `event_dropped` entry: `{"bytes":…,"sha256":…}`.
    pub fn into_details(self) -> String {
        let sha256: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        serde_json::json!({"bytes": self.bytes, "sha256": sha256}).to_string()
    }
}
