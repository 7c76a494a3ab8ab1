//! Any bytes, cut anywhere, under any cap: the decoder's laws hold.
#![no_main]

#[path = "../laws.rs"]
mod laws;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first six bytes choose cap and chunk lengths, the rest is the stream.
    let Some((choice, stream)) = input.split_first_chunk::<6>() else { return };
    let cap = usize::from(u16::from_be_bytes([choice[0], choice[1]]));
    let cuts: Vec<usize> = choice[2..].iter().map(|&len| usize::from(len)).collect();
    laws::check(stream, &cuts, cap);
});
