//! What happens in a run because nothing else does: the clock's part of the owner.

use std::time::Duration;

use tokio::time::Instant;

use super::{Durability, End, Owner, Tagging};
use crate::session::Terminal;

/// How often a run that waits for other runs' memory looks again.
const MEMORY_RETRY: Duration = Duration::from_millis(20);

/// A run that is silent for so long asks the log whether somebody has asked for its end. Commands say so
/// sooner; but who set the flag may have died before it could send one.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// A buffer that is full means that the store is away only where one call has had no answer for so long: before,
/// the upstream may simply be faster than a store that is at work.
const FULL_AFTER: Duration = Duration::from_secs(1);

/// What happens next if nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The run is too long.
    Duration,
    /// The direct caller has waited for the store long enough.
    Hurry,
    /// Nothing more has room to wait for the store, and the direct caller would wait with it.
    Full,
    /// The run has waited for the store long enough.
    GiveUp,
    /// The upstream has been silent.
    Silence,
    /// Other runs may have freed memory.
    Memory,
    /// The log has not been asked anything for a while.
    Look,
}

impl Owner {
    /// What happens next if nothing else does, and when. A run that has ended and only waits for
    /// the store has no alarm left: one that is over and cannot be acted on would ring for ever.
    pub(super) fn next_alarm(&self, in_flight: bool, reading: bool, crowded: bool) -> Option<(Instant, Alarm)> {
        let settings = &self.runs.settings;
        let mut alarm = None;
        let mut also = |enabled: bool, at: Instant, what: Alarm| {
            if enabled && alarm.is_none_or(|(first, _)| at < first) {
                alarm = Some((at, what));
            }
        };
        also(!self.ended, self.began + settings.run_duration, Alarm::Duration);
        // Only where bytes or their end wait: what we write ourselves (which is also how a slow store is told) makes
        // nobody wait.
        let waits = self.caller.is_some() && (self.books.holds() || self.ended);
        let hurry = self.durability == Durability::Stored && waits && self.spec.ids == Tagging::Off;
        also(in_flight && hurry, self.flight_began + settings.eager_after, Alarm::Hurry);
        let give_up = self.durability != Durability::Over && !self.gave_up;
        let full = crowded && give_up && self.caller.is_some() && self.spec.ids == Tagging::Off;
        also(in_flight && full, self.flight_began + settings.eager_after.max(FULL_AFTER), Alarm::Full);
        also(in_flight && give_up, self.flight_began + settings.outage_limit, Alarm::GiveUp);
        let patience = if self.stalled { self.spec.stall_limit } else { self.spec.stall };
        also(reading, self.heard + patience, Alarm::Silence);
        let idle = !in_flight && self.open && !self.ended && self.durability == Durability::Stored;
        also(idle, self.answered_at + LOOK_AFTER, Alarm::Look);
        also(crowded, Instant::now() + MEMORY_RETRY, Alarm::Memory);
        alarm
    }

    pub(super) fn alarmed(&mut self, alarm: Alarm) -> Option<End> {
        match alarm {
            Alarm::Duration => Some(End::broken(Terminal::Cancelled, "duration")),
            Alarm::Hurry => {
                self.hurry();
                None
            }
            Alarm::Full => self.give_up("what waits for the store has no room any more"),
            Alarm::GiveUp => self.give_up("the store has been away for store.outage_limit"),
            Alarm::Silence => self.silent(),
            Alarm::Memory => None,
            Alarm::Look => {
                self.looks = true;
                None
            }
        }
    }
}
