//! Any bytes, in any framing that is not SSE, cut anywhere, under any cap: the decoders' laws hold.
#![no_main]

#[path = "../framing_laws.rs"]
mod laws;

use libfuzzer_sys::fuzz_target;
use sidestream::framing::Framing;

fuzz_target!(|input: &[u8]| {
    // The first seven bytes choose framing, cap and chunk lengths, the rest is the stream.
    let Some((choice, stream)) = input.split_first_chunk::<7>() else { return };
    let framing = [Framing::Lines, Framing::Prefixed, Framing::JsonArray][usize::from(choice[0]) % 3];
    let cap = usize::from(u16::from_be_bytes([choice[1], choice[2]]));
    let cuts: Vec<usize> = choice[3..].iter().map(|&len| usize::from(len)).collect();
    laws::check(framing, stream, &cuts, cap);
});
