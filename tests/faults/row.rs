//! A row of the table.

use std::fmt;
use std::time::Duration;

/// What came of a fault.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Events in the log at the end.
    pub(crate) written: u64,
    /// Events that subscribers got, all together.
    pub(crate) delivered: u64,
    /// Events that agents said, that are not in the log, and that nobody was told of; what subscribers missed.
    pub(crate) lost: u64,
    /// Events that are named as lost.
    pub(crate) named: u64,
    /// Events that a subscriber saw and a gap took back, and that are not in the log again.
    pub(crate) taken_back: u64,
    /// Twice in the log, or twice at a subscriber.
    pub(crate) duplicated: u64,
    /// Other content, other order, another number of terminals than one, a view that is not the log.
    pub(crate) wrong: u64,
    /// Runs that were ended for their owner.
    pub(crate) interrupted: u64,
    /// Gaps that subscribers were told of.
    pub(crate) gaps: u64,
    /// The longest time between two events that any subscriber saw.
    pub(crate) stall: Duration,
    /// The most memory that a sidecar had, bytes.
    pub(crate) memory: u64,
    /// From the death of a sidecar until the last of its runs was seen to have ended.
    pub(crate) ended_after: Option<Duration>,
    /// The first breaches, in words.
    pub(crate) breaches: Vec<String>,
}

/// What the columns are.
pub(crate) const HEADER: &str = "| fault | written | delivered | lost | named as lost | taken back | twice | wrong | interrupted | gaps told | worst stall | memory | holds |\n\
                                 |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|";

impl Row {
    /// Whether the invariants hold.
    pub(crate) fn holds(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.wrong == 0
    }

    /// Notes a breach.
    pub(crate) fn breach(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.breaches.len() < 12 {
            self.breaches.push(what());
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            name,
            written,
            delivered,
            lost,
            named,
            taken_back,
            duplicated,
            wrong,
            interrupted,
            gaps,
            stall,
            memory,
            ..
        } = self;
        let (stall, holds) = (stall.as_millis(), if self.holds() { "yes" } else { "**no**" });
        write!(
            f,
            "| `{name}` | {written} | {delivered} | {lost} | {named} | {taken_back} | {duplicated} | {wrong} | {interrupted} "
        )?;
        write!(f, "| {gaps} | {stall} ms | {} MiB | {holds} |", memory >> 20)
    }
}
