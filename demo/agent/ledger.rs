//! Who asked for what, and how it ended: so that a test can say "exactly one upstream request".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Paths that are counted one by one; further ones are counted together.
const MAX_PATHS: usize = 1000;

/// Counts of requests since the start, by method and path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<BTreeMap<String, Counts>>>);

/// How the requests of one path went. What is none of the last two is still under way.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counts {
    received: u64,
    completed: u64,
    aborted: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    total: Counts,
    paths: &'a BTreeMap<String, Counts>,
}

impl Ledger {
    /// A request has come. The ticket counts how it ends.
    pub(crate) fn received(&self, method: &str, path: &str) -> Ticket {
        let mut paths = self.lock();
        let mut key = format!("{method} {path}");
        if paths.len() >= MAX_PATHS && !paths.contains_key(&key) {
            key = "others".to_owned();
        }
        paths.entry(key.clone()).or_default().received += 1;
        drop(paths);
        Ticket { ledger: self.clone(), key, completed: false }
    }

    /// Everything counted, as JSON: `{"total": COUNTS, "paths": {"POST /api/chat": COUNTS, …}}`.
    pub(crate) fn report(&self) -> serde_json::Result<Vec<u8>> {
        let paths = self.lock();
        let total = paths.values().fold(Counts::default(), |sum, counts| Counts {
            received: sum.received + counts.received,
            completed: sum.completed + counts.completed,
            aborted: sum.aborted + counts.aborted,
        });
        serde_json::to_vec_pretty(&Report { total, paths: &paths })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Counts>> {
        // Counts are right at every moment, also at that of a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request under way. Dropped before its answer was complete, it counts as aborted.
#[derive(Debug)]
pub(crate) struct Ticket {
    ledger: Ledger,
    key: String,
    completed: bool,
}

impl Ticket {
    /// The whole answer (broken where that was asked for) has been handed over.
    pub(crate) fn complete(&mut self) {
        self.completed = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut paths = self.ledger.lock();
        let counts = paths.entry(std::mem::take(&mut self.key)).or_default();
        if self.completed {
            counts.completed += 1;
        } else {
            counts.aborted += 1;
        }
    }
}
