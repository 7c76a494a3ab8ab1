//! What readers saw: latencies, and whether each stream came whole, once and in order.

/// One stream of numbered, stamped events as its reader sees it.
#[derive(Debug)]
pub(crate) struct Tally {
    expected: u64,
    /// How many there will be is not known yet.
    open: bool,
    seen: Vec<bool>,
    newest: u64,
    duplicates: u64,
    disordered: u64,
    /// When it was written, and how much later it was read; nanoseconds.
    latencies: Vec<(u64, u64)>,
}

/// All streams of a phase.
#[derive(Debug, Default)]
pub(crate) struct Total {
    /// Events that should have come.
    pub(crate) expected: u64,
    /// Events that never came.
    pub(crate) lost: u64,
    /// Events that came again.
    pub(crate) duplicates: u64,
    /// Events that came after a later one.
    pub(crate) disordered: u64,
    latencies: Vec<(u64, u64)>,
}

impl Tally {
    /// A stream of the events 1 to `expected`.
    pub(crate) fn new(expected: u64) -> Self {
        let seen = vec![false; usize::try_from(expected).unwrap_or(0)];
        Tally { expected, open: false, seen, newest: 0, duplicates: 0, disordered: 0, latencies: Vec::new() }
    }

    /// A stream of which nobody knows yet how many events it has.
    pub(crate) fn open() -> Self {
        Tally { open: true, ..Tally::new(0) }
    }

    /// It turns out to be the events 1 to `expected`.
    pub(crate) fn ends_after(&mut self, expected: u64) {
        (self.expected, self.open) = (expected, false);
        self.seen.resize(usize::try_from(expected).unwrap_or(0), false);
    }

    /// Takes the bytes that carry one event, read at `at_ns`; bytes without a number are not one.
    pub(crate) fn event(&mut self, bytes: &[u8], at_ns: u64) {
        let (Some(n), Some(t_ns)) = (number(bytes, b"\"n\":"), number(bytes, b"\"t_ns\":")) else { return };
        let place = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
        if let Some(place) = place
            && self.open
            && place >= self.seen.len()
        {
            self.seen.resize(place + 1, false);
        }
        let place = place.and_then(|place| self.seen.get_mut(place));
        match place {
            Some(seen) if !*seen => *seen = true,
            _ => {
                self.duplicates += 1;
                return;
            }
        }
        self.disordered += u64::from(n < self.newest);
        self.newest = self.newest.max(n);
        self.latencies.push((t_ns, at_ns.saturating_sub(t_ns)));
    }
}

impl Total {
    /// The sum of streams.
    pub(crate) fn of(tallies: impl IntoIterator<Item = Tally>) -> Self {
        let mut total = Total::default();
        tallies.into_iter().for_each(|tally| total.add(tally));
        total
    }

    fn add(&mut self, tally: Tally) {
        self.expected += tally.expected;
        self.lost += tally.seen.iter().filter(|seen| !**seen).count() as u64;
        self.duplicates += tally.duplicates;
        self.disordered += tally.disordered;
        self.latencies.extend(tally.latencies);
    }

    /// Adds the streams of another phase.
    pub(crate) fn merge(&mut self, other: Total) {
        self.expected += other.expected;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.disordered += other.disordered;
        self.latencies.extend(other.latencies);
    }

    /// The latencies of the events that were written in this window, sorted.
    pub(crate) fn latencies(&self, from_ns: u64, to_ns: u64) -> Vec<u64> {
        let inside = self.latencies.iter().filter(|(t_ns, _)| (from_ns..to_ns).contains(t_ns));
        let mut latencies: Vec<u64> = inside.map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        latencies
    }
}

/// The value at this quantile of sorted values, in milliseconds; nearest rank.
pub(crate) fn quantile_ms(sorted: &[u64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
}

/// The number that follows `key`.
pub(crate) fn number(bytes: &[u8], key: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(bytes, key)? + key.len();
    let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut any = false;
    let value = digits.fold(0u64, |value, digit| {
        any = true;
        value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
    });
    any.then_some(value)
}
