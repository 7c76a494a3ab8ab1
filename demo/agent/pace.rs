//! How fast an answer is streamed: a rate with seeded jitter, as models have it.

use std::time::Duration;

/// The pauses before the events of one answer.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    random: Random,
    /// Mean pause; none: as fast as possible.
    mean: Option<Duration>,
}

impl Pace {
    /// A pace of `rate` events per second (0: as fast as possible; none: 20 to 80, by the seed).
    pub(crate) fn new(rate: Option<f64>, seed: u64) -> Self {
        let mut random = Random(seed);
        let rate = rate.unwrap_or_else(|| 20.0 + 60.0 * random.unit());
        // Below one event in a day it is not a rate.
        let mean = (rate > 0.0).then(|| Duration::from_secs_f64((1.0 / rate).min(86_400.0)));
        Pace { random, mean }
    }

    /// The next pause: half to one and a half times the mean.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        self.mean.map(|mean| mean.mul_f64(0.5 + self.random.unit()))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): good enough for jitter, and the same on every machine.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    /// In `0.0..1.0`.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_pauses_around_the_mean() {
        let pauses = |seed| {
            let mut pace = Pace::new(Some(50.0), seed);
            (0..1000).filter_map(move |_| pace.pause()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
        let mean = pauses(7).iter().sum::<Duration>() / 1000;
        assert!((Duration::from_millis(19)..Duration::from_millis(21)).contains(&mean), "{mean:?}");
    }

    #[test]
    fn rate_zero_is_no_pause_at_all() {
        assert_eq!(Pace::new(Some(0.0), 1).pause(), None);
    }
}
