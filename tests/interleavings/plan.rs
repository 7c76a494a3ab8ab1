//! Plans out of seeds, and who plays them for how long.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How long plans are played where nobody says otherwise.
const SECONDS: u64 = 5;

/// The longest that anything in a plan may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Plays plans, one after the other, each with its number, until the time is up.
pub async fn play<P: Debug>(plans: impl Strategy<Value = P>, mut play: impl AsyncFnMut(u64, P)) {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let (only, seconds) = (number("INTERLEAVINGS_SEED"), number("INTERLEAVINGS_SECONDS").unwrap_or(SECONDS));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut played = 0;
    while played == 0 || Instant::now() < end {
        let seed = only.unwrap_or_else(rand_seed);
        let plan = plan(&plans, seed);
        let told = Told(format!("INTERLEAVINGS_SEED={seed} plays this again, plan {played}:\n{plan:#?}"));
        let over = tokio::time::timeout(3 * PATIENCE, play(played, plan)).await;
        assert!(over.is_ok(), "the plan never ended");
        drop(told);
        played += 1;
    }
    eprintln!("{played} plans in {seconds} s");
}

fn plan<P: Debug>(plans: &impl Strategy<Value = P>, seed: u64) -> P {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    plans.new_tree(&mut runner).expect("a plan").current()
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Keyed at random, for each one anew.
    std::hash::RandomState::new().build_hasher().finish()
}

/// Says what was played, where it failed.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Small decisions within a plan (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those of one actor of a plan.
    pub fn new(seed: u64, actor: usize) -> Self {
        Dice(seed ^ (actor as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// Gives way, or waits a little.
    pub async fn pause(&mut self) {
        match self.below(4) {
            0 => tokio::time::sleep(Duration::from_millis(1 + self.below(6))).await,
            turns => give_way(turns).await,
        }
    }
}

/// Lets others go first, so many times.
pub async fn give_way(turns: u64) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}
