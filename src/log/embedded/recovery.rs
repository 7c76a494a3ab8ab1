//! What happens when the database fails: a full disk, an I/O error.
//!
//! `redb` refuses everything after an I/O error until it is opened again. It is opened at once, so
//! that reads go on; writes are tried again after a pause.

use std::time::{Duration, Instant};

use super::error::Fault;
use super::writer::Working;
use crate::log::{StoreHealth, Unavailable};

/// How soon after the first failure a write is tried again; doubled with every further one.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Up to 1.6 s.
const MOST_DOUBLINGS: u32 = 4;

/// Whether the database takes writes.
#[derive(Default)]
pub(super) enum Condition {
    /// The last commit succeeded.
    #[default]
    Works,
    /// It failed. It may be open for reading.
    Failed {
        /// When a write is tried again.
        retry_at: Instant,
        /// How often it has failed since it worked, beside the first time.
        strikes: u32,
    },
}

impl Condition {
    pub(super) fn works(&self) -> bool {
        matches!(self, Condition::Works)
    }
}

impl Working {
    /// The database has failed: everybody is told, and it is opened again, at least for reading.
    pub(super) fn fail(&mut self, fault: Fault) -> Unavailable {
        let why = Unavailable::from(fault);
        tracing::error!(reason = why.detail, "the store failed");
        self.writer.health.send_replace(StoreHealth::Down { reason: why.detail.clone() });
        self.writer.slot.close(why.detail.clone());
        self.open_again();
        why
    }

    /// Opens the database again, and lets nobody write to it for a while.
    fn open_again(&mut self) {
        let begun = Instant::now();
        match self.writer.place.open_again() {
            Ok(database) => {
                self.writer.slot.put(database);
                self.garbage = true;
                // The commit that failed may be in the file, and nobody was told of it.
                self.writer.followers.check_all();
            }
            Err(fault) => self.writer.slot.close(fault.to_string()),
        }
        // A large file takes its time to be checked; that must not become all that is done.
        let strikes = match self.condition {
            Condition::Works => 0,
            Condition::Failed { strikes, .. } => strikes + 1,
        };
        let pause = RETRY_AFTER * 2u32.pow(strikes.min(MOST_DOUBLINGS));
        let retry_at = Instant::now() + pause.max(begun.elapsed() * 4);
        self.condition = Condition::Failed { retry_at, strikes };
    }

    /// Whether the database may be written to now, opened again if that is due.
    pub(super) fn ready(&mut self) -> Result<(), Unavailable> {
        let Condition::Failed { retry_at, .. } = self.condition else { return Ok(()) };
        if Instant::now() >= retry_at {
            if self.writer.slot.is_open() {
                return Ok(());
            }
            self.open_again();
        }
        Err(match &*self.writer.health.borrow() {
            StoreHealth::Down { reason } => Unavailable::new(reason.clone()),
            StoreHealth::Up => Unavailable::new("the store has failed"),
        })
    }

    /// A commit has succeeded.
    pub(super) fn works(&mut self) {
        if !self.condition.works() {
            tracing::info!("the store works again");
            self.writer.health.send_replace(StoreHealth::Up);
        }
        self.condition = Condition::Works;
    }
}
