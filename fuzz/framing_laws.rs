//! The laws of the decoders of streams that are not SSE, checked for one input. Used by the fuzz target and by
//! `tests/framings.rs`.

use bytes::BytesMut;
use serde_json::value::RawValue;
use sidestream::framing::{Decoder, Encoder, Framing};
use sidestream::sse::{Event, Frame, Tail};

/// Everything that came out of a decoder.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) frames: Vec<Frame>,
    pub(crate) tail: Tail,
}

impl Decoded {
    /// The events.
    pub(crate) fn events(&self) -> Vec<Event> {
        let event = |frame: &Frame| match frame {
            Frame::Event { event, .. } => Some(event.clone()),
            _ => None,
        };
        self.frames.iter().filter_map(event).collect()
    }

    fn oversize_events(&self) -> usize {
        self.frames.iter().filter(|f| matches!(f, Frame::OversizeEnd { event: true, .. })).count()
    }
}

/// Decodes `input`, cut into chunks of the lengths `cuts` (again and again; none: one chunk), to a clean end.
pub(crate) fn decode(framing: Framing, input: &[u8], cuts: &[usize], cap: usize) -> Decoded {
    let mut decoder = Decoder::new(framing, cap);
    let mut decoded = Decoded::default();
    let mut cuts = cuts.iter().copied().cycle();
    let mut rest = input;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(cuts.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = after;
        decoder.feed(chunk);
        decoded.frames.extend(decoder.by_ref());
        assert!(decoder.buffered() <= cap, "holds more than the cap between two feeds");
    }
    let (last, tail) = decoder.finish();
    decoded.frames.extend(last);
    decoded.tail = tail;
    decoded
}

/// Checks every law on `input`. Panics where one is broken.
pub(crate) fn check(framing: Framing, input: &[u8], cuts: &[usize], cap: usize) {
    let whole = decode(framing, input, &[], usize::MAX);
    let capped = decode(framing, input, &[], cap);
    let cut = decode(framing, input, cuts, cap);
    for decoded in [&whole, &capped, &cut] {
        let mut raw: Vec<u8> = decoded.frames.iter().flat_map(|f| f.raw().iter().copied()).collect();
        raw.extend_from_slice(&decoded.tail.raw);
        assert_eq!(raw, input, "bytes were lost, added or moved");
    }
    assert_eq!(cut.events(), capped.events(), "events depend on the chunking");
    assert_eq!(cut.oversize_events(), capped.oversize_events());
    assert_eq!(cut.tail.event, capped.tail.event);
    assert!(capped.events().iter().all(|event| event.data.len() <= cap.saturating_mul(3)));
    if cap >= input.len() {
        assert_eq!(capped.events(), whole.events());
    }
    if let Some(expected) = expected(framing, input) {
        assert_eq!(seen(&whole), expected, "a strict parser reads something else");
    }
    comes_back(framing, &whole);
}

fn seen(decoded: &Decoded) -> Vec<(Option<String>, String)> {
    decoded
        .events()
        .iter()
        .map(|event| (event.name.as_ref().map(ToString::to_string), event.data.to_string()))
        .collect()
}

/// What a parser reads that is not ours, where the input is what the framing says.
fn expected(framing: Framing, input: &[u8]) -> Option<Vec<(Option<String>, String)>> {
    let text = std::str::from_utf8(input).ok()?;
    let json = |text: &str| serde_json::from_str::<&RawValue>(text).is_ok();
    if framing == Framing::JsonArray {
        // Serde leaves the space around an element to the array.
        let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        return Some(elements.into_iter().map(|element| (None, element.get().to_owned())).collect());
    }
    let mut lines: Vec<&str> = text.split('\n').collect();
    let last = lines.pop()?;
    let line = |line: &str| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let code = |(code, rest): &(&str, &str)| {
            (1..=32).contains(&code.len()) && code.chars().all(|c| c.is_ascii_alphanumeric()) && json(rest)
        };
        match line.split_once(':').filter(code) {
            Some((code, rest)) if framing == Framing::Prefixed => (Some(code.to_owned()), rest.to_owned()),
            _ => (None, line.to_owned()),
        }
    };
    let blank = |line: &str| line.bytes().all(|byte| byte.is_ascii_whitespace());
    let mut read: Vec<_> = lines.into_iter().filter(|line| !blank(line)).map(line).collect();
    let whole = if framing == Framing::Prefixed { line(last).0.is_some() } else { json(last) };
    read.extend((whole && !blank(last)).then(|| line(last)));
    Some(read)
}

/// What was written is read back: wherever the events are what their framing says.
fn comes_back(framing: Framing, decoded: &Decoded) {
    let events = decoded.events();
    let json = |event: &&Event| serde_json::from_str::<&RawValue>(&event.data).is_ok();
    if !events.iter().all(|event| json(&event)) {
        return;
    }
    let (mut encoder, mut out) = (Encoder::new(framing), BytesMut::new());
    for event in &events {
        encoder.write(event.name.as_deref(), &event.data, event.id.as_deref(), &mut out);
    }
    encoder.end(&mut out);
    let again = decode(framing, &out, &[7, 1], usize::MAX);
    let same = |a: &Event, b: &Event| {
        let value = |event: &Event| serde_json::from_str::<serde_json::Value>(&event.data).ok();
        a.name == b.name && (a.data.trim() == b.data.trim() || value(a) == value(b))
    };
    let all = again.events().len() == events.len() && events.iter().zip(again.events()).all(|(a, b)| same(a, &b));
    assert!(all, "{events:?} came back as {:?}", again.events());
}
