//! The laws of the SSE decoder, checked for one input. Used by the fuzz target and, so that they
//! are checked on every run of the tests, by `tests/sse_conformance.rs`.

use sidestream::sse::{Decoder, Event, Frame, Tail};

/// Everything that came out of a decoder.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) frames: Vec<Frame>,
    pub(crate) tail: Tail,
    pub(crate) last_event_id: String,
    pub(crate) retry: Option<u64>,
}

impl Decoded {
    /// The dispatched events.
    pub(crate) fn events(&self) -> Vec<Event> {
        let event = |frame: &Frame| match frame {
            Frame::Event { event, .. } => Some(event.clone()),
            _ => None,
        };
        self.frames.iter().filter_map(event).collect()
    }

    /// The dispatched events as a client sees them: each with its name, its data, and the last
    /// event id that a reader of `Event::id` has at that point.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let mut id = String::new();
        let mut seen = Vec::new();
        for event in self.events() {
            if let Some(new) = event.id {
                id = new.to_string();
            }
            let name = event.name.as_deref().unwrap_or("message").to_owned();
            seen.push(Seen { name, data: event.data.to_string(), id: id.clone() });
        }
        seen
    }

    fn oversize_events(&self) -> usize {
        self.frames.iter().filter(|f| matches!(f, Frame::OversizeEnd { event: true, .. })).count()
    }
}

/// An event as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

/// Decodes `input`, cut into chunks of the lengths `cuts` (again and again; what `cuts` does not
/// say comes as one chunk).
pub(crate) fn decode(input: &[u8], cuts: &[usize], cap: usize) -> Decoded {
    let mut decoder = Decoder::new(cap);
    let mut decoded = Decoded::default();
    let mut cuts = cuts.iter().copied().cycle();
    let mut rest = input;
    // Of a line above the cap at least its name is kept.
    let held = cap.max(b"retry:".len());
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(cuts.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = after;
        decoder.feed(chunk);
        assert!(decoder.buffered() <= held.saturating_add(chunk.len()), "holds more than the cap and one chunk");
        decoded.frames.extend(decoder.by_ref());
        assert!(decoder.buffered() <= held, "holds more than the cap between two feeds");
    }
    decoded.last_event_id = decoder.last_event_id().to_owned();
    decoded.retry = decoder.retry();
    decoded.tail = decoder.finish();
    decoded
}

/// Checks every law on `input`. Panics where one is broken.
pub(crate) fn check(input: &[u8], cuts: &[usize], cap: usize) {
    let reference = reference(input);
    let whole = decode(input, &[], usize::MAX);
    assert_eq!(whole.seen(), reference.seen, "a strict parser reads something else");
    assert_eq!(whole.last_event_id, reference.last_event_id);
    assert_eq!(whole.retry, reference.retry);

    let capped = decode(input, &[], cap);
    let cut = decode(input, cuts, cap);
    for decoded in [&whole, &capped, &cut] {
        bytes_are_kept(input, decoded);
        frames_mean_what_they_say(decoded);
    }
    assert_eq!(cut.events(), capped.events(), "events depend on the chunking");
    assert_eq!(cut.oversize_events(), capped.oversize_events());
    assert_eq!((&cut.last_event_id, cut.retry), (&capped.last_event_id, capped.retry));
    assert_eq!(cut.tail.event, capped.tail.event);

    let fits = whole.frames.iter().filter(|f| matches!(f, Frame::Event { raw, .. } if counted(raw) <= cap));
    assert_eq!(fits.count(), capped.events().len(), "the cap decides by another length");
    assert_eq!(whole.events().len(), capped.events().len() + capped.oversize_events());
    // Only an id that does not fit below the cap may be lost with its block.
    if input.split(|b| matches!(b, b'\n' | b'\r')).all(|line| line.len() <= cap) {
        assert_eq!(whole.last_event_id, capped.last_event_id);
        assert_eq!(whole.retry, capped.retry);
        let kept = |f: &&Frame| matches!(f, Frame::Event { raw, .. } if counted(raw) <= cap);
        let of_kept = whole.frames.iter().filter(|f| matches!(f, Frame::Event { .. })).zip(whole.seen());
        let expected: Vec<_> = of_kept.filter(|(f, _)| kept(f)).map(|(_, seen)| seen).collect();
        assert_eq!(capped.seen(), expected, "a dropped block took its id with it");
    }
}

/// The length that counts towards the cap: without the LF of a final CRLF.
fn counted(raw: &[u8]) -> usize {
    raw.len() - usize::from(raw.ends_with(b"\r\n"))
}

fn bytes_are_kept(input: &[u8], decoded: &Decoded) {
    let mut raw: Vec<u8> = decoded.frames.iter().flat_map(|f| f.raw().iter().copied()).collect();
    raw.extend_from_slice(&decoded.tail.raw);
    assert_eq!(raw, input, "bytes were lost, added or moved");
    assert!(decoded.frames.iter().all(|f| !f.raw().is_empty()), "an empty frame");
}

fn frames_mean_what_they_say(decoded: &Decoded) {
    for frame in &decoded.frames {
        // A line end in front: these bytes are not the beginning of a stream, where a BOM is dropped.
        let alone = reference(&[b"\n", &frame.raw()[..]].concat()).seen;
        match frame {
            Frame::Filler(raw) => assert_eq!(alone, [], "filler that dispatches: {raw:?}"),
            Frame::Event { event, .. } => {
                let [alone] = &alone[..] else { panic!("a block that is not one event: {alone:?}") };
                assert_eq!(alone.data, *event.data);
                assert_eq!(alone.name, event.name.as_deref().unwrap_or("message"));
                assert_ne!(event.name.as_deref(), Some(""));
                assert!(alone.id.is_empty() || event.id.as_deref() == Some(&alone.id));
            }
            Frame::OversizePart(_) | Frame::OversizeEnd { .. } => {}
        }
    }
}

/// What the strict parser below reads.
struct Reference {
    seen: Vec<Seen>,
    last_event_id: String,
    retry: Option<u64>,
}

/// A parser written straight from the standard, and for nothing but to be obviously right: decode
/// everything, split into lines, interpret line by line.
fn reference(input: &[u8]) -> Reference {
    let text = String::from_utf8_lossy(input);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
    let mut out = Reference { seen: Vec::new(), last_event_id: String::new(), retry: None };
    let (mut name, mut data, mut id) = (String::new(), String::new(), String::new());
    let mut has_data = false;
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // What follows the last line end is not a line.
    for line in lines {
        if line.is_empty() {
            out.last_event_id = id.clone();
            if std::mem::take(&mut has_data) {
                data.pop();
                let name = if name.is_empty() { "message".to_owned() } else { name.clone() };
                out.seen.push(Seen { name, data: data.clone(), id: id.clone() });
            }
            name.clear();
            data.clear();
            continue;
        }
        if line.starts_with(':') {
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => {
                has_data = true;
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                out.retry = Some(value.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }
    out
}
