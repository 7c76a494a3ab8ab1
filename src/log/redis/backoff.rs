//! Pauses between attempts, and the randomness that keeps instances apart.

use std::time::Duration;

/// The longest pause between two attempts to connect. Short, because an instance that is late after an
/// outage is taken for dead (`run::lease`); an attempt costs a server that is away nothing.
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

/// Doubling pauses, each somewhere between its half and its whole, so that instances that lost the
/// same server do not come back in the same moment.
#[derive(Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let whole = Duration::from_millis(50 << self.attempts.min(6)).min(LONGEST_BACKOFF);
        self.attempts += 1;
        whole / 2 + whole.mul_f64(f64::from(random() as u32) / f64::from(u32::MAX) / 2.0)
    }
}

/// 64 random bits.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_never_beyond() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] >= Duration::from_millis(25) && pauses[0] <= Duration::from_millis(50));
        assert!(pauses[19] >= LONGEST_BACKOFF / 2);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_BACKOFF));
    }
}
