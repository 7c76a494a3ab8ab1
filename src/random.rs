//! Randomness from the operating system. No other module asks for it.

use std::time::Duration;

/// 128 random bits: enough that an id cannot be guessed or met twice.
pub(crate) fn u128() -> u128 {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// 64 random bits.
pub(crate) fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A random duration from zero to `most`, to spread what would otherwise happen at once.
pub(crate) fn up_to(most: Duration) -> Duration {
    let fraction = (u64() >> 11) as f64 / (1u64 << 53) as f64;
    most.mul_f64(fraction)
}

fn fill(bytes: &mut [u8]) {
    // Without randomness no id is unguessable: there is nothing safe to go on with.
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}
