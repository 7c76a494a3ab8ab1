//! The decoder against the cases that other projects test themselves with, and its laws against
//! anything at all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[path = "../fuzz/laws.rs"]
mod laws;

use base64::Engine;
use bytes::BytesMut;
use laws::{Decoded, Seen, check, decode};
use proptest::prelude::*;
use serde::Deserialize;
use sidestream::sse::{Decoder, Event, Frame, encode};

const NO_CAP: usize = usize::MAX;

/// A case of tests/data/sse/conformance.json (Web Platform Tests, LaunchDarkly's contract tests,
/// eventsource-parser's tests, and shapes seen on real wires).
#[derive(Deserialize)]
struct Case {
    name: String,
    input_base64: String,
    expect: Vec<Expected>,
    last_event_id: Option<String>,
    retry: Option<u64>,
    #[serde(default)]
    chunks: Vec<usize>,
}

#[derive(Deserialize)]
struct Expected {
    id: String,
    event: String,
    data: String,
}

impl Case {
    fn input(&self) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD.decode(&self.input_base64).unwrap()
    }

    fn assert_read(&self, decoded: &Decoded, how: &str) {
        let expected: Vec<Seen> = self
            .expect
            .iter()
            .map(|e| Seen { name: e.event.clone(), data: e.data.clone(), id: e.id.clone() })
            .collect();
        assert_eq!(decoded.seen(), expected, "{}: {how}", self.name);
        if let Some(id) = &self.last_event_id {
            assert_eq!(decoded.last_event_id, *id, "{}: {how}", self.name);
        }
        assert_eq!(decoded.retry, self.retry, "{}: {how}", self.name);
    }
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_str(include_str!("data/sse/conformance.json")).unwrap();
    assert_eq!(cases.len(), 125);
    cases
}

#[test]
fn every_conformance_case_is_read_as_expected() {
    for case in cases() {
        case.assert_read(&decode(&case.input(), &[], NO_CAP), "whole");
        case.assert_read(&decode(&case.input(), &[1], NO_CAP), "byte by byte");
        if !case.chunks.is_empty() {
            case.assert_read(&decode_chunks(&case.input(), &case.chunks), "its own chunks");
        }
    }
}

/// Like `decode`, but exactly these chunks: they may be empty.
fn decode_chunks(mut input: &[u8], chunks: &[usize]) -> Decoded {
    let mut decoder = Decoder::new(NO_CAP);
    let mut decoded = Decoded::default();
    for &len in chunks {
        let (chunk, rest) = input.split_at(len);
        input = rest;
        decoder.feed(chunk);
        decoded.frames.extend(decoder.by_ref());
    }
    assert!(input.is_empty(), "the chunks are the whole input");
    decoded.last_event_id = decoder.last_event_id().to_owned();
    decoded.retry = decoder.retry();
    decoded
}

#[test]
fn every_conformance_case_is_read_as_expected_when_split_in_two_anywhere() {
    for case in cases() {
        let input = case.input();
        // Beyond a few kilobytes it is the same line over and over.
        for at in (1..input.len()).filter(|&at| at < 4096 || at % 97 == 0 || at > input.len() - 64) {
            case.assert_read(&decode(&input, &[at, NO_CAP], NO_CAP), &format!("split at {at}"));
        }
    }
}

#[test]
fn an_event_comes_out_with_the_first_byte_that_completes_it() {
    for (input, completes_at) in [("data:x\n\n", 8), ("data:x\r\n\r\n", 9), ("data:x\r\r", 8), ("data:x\n\r", 8)] {
        let mut decoder = Decoder::new(NO_CAP);
        let mut fed = 0;
        for byte in input.as_bytes().chunks(1) {
            decoder.feed(byte);
            fed += 1;
            if let Some(Frame::Event { .. }) = decoder.next() {
                break;
            }
        }
        assert_eq!(fed, completes_at, "{input:?}");
    }
}

#[test]
fn the_lf_of_a_crlf_that_comes_late_is_handed_on_at_once_and_never_becomes_part_of_the_next_event() {
    let mut decoder = Decoder::new(NO_CAP);
    decoder.feed(b"data:x\r\n\r");
    assert!(matches!(decoder.next(), Some(Frame::Event { raw, .. }) if &raw[..] == b"data:x\r\n\r"));
    decoder.feed(b"\n");
    assert_eq!(decoder.next(), Some(Frame::Filler("\n".into())));
    decoder.feed(b"data:y\n\n");
    assert!(matches!(decoder.next(), Some(Frame::Event { raw, .. }) if &raw[..] == b"data:y\n\n"));
}

#[test]
fn a_heartbeat_between_events_flows_at_its_line_end() {
    let mut decoder = Decoder::new(NO_CAP);
    decoder.feed(b": heartbeat");
    assert_eq!(decoder.next(), None);
    decoder.feed(b"\n");
    assert_eq!(decoder.next(), Some(Frame::Filler(": heartbeat\n".into())));
    decoder.feed(b"data: x\n: inside\n");
    assert_eq!(decoder.next(), None, "a comment after a field belongs to the block");
    decoder.feed(b"\n: OPENROUTER PROCESSING\r");
    assert!(matches!(decoder.next(), Some(Frame::Event { raw, .. }) if &raw[..] == b"data: x\n: inside\n\n"));
    assert_eq!(decoder.next(), Some(Frame::Filler(": OPENROUTER PROCESSING\r".into())));
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn one_line_of_data_is_a_view_of_its_block() {
    let mut decoder = Decoder::new(NO_CAP);
    decoder.feed(b"event: token\ndata: {\"t\":1}\n\n");
    let Some(Frame::Event { raw, event }) = decoder.next() else { panic!("an event") };
    let within = |part: &str| raw.as_ptr_range().contains(&part.as_ptr());
    assert!(within(&event.data) && within(event.name.as_deref().unwrap()));
}

#[test]
fn a_block_above_the_cap_flows_on_in_pieces_and_the_next_event_is_read_again() {
    let mut decoder = Decoder::new(16);
    decoder.feed(b"data: small\n\ndata: 0123456789");
    assert!(matches!(decoder.next(), Some(Frame::Event { event, .. }) if event.data == "small"));
    assert_eq!(decoder.next(), None);
    decoder.feed(b"0");
    assert_eq!(decoder.next(), Some(Frame::OversizePart("data: 01234567890".into())));
    assert_eq!(decoder.buffered(), b"data: ".len(), "only the field's name is kept");
    decoder.feed(b"more\nid: 9\n");
    assert_eq!(decoder.next(), Some(Frame::OversizePart("more\nid: 9\n".into())));
    decoder.feed(b"\ndata: after\n\n");
    assert_eq!(decoder.next(), Some(Frame::OversizeEnd { raw: "\n".into(), event: true }));
    assert_eq!(decoder.last_event_id(), "9");
    let Some(Frame::Event { event, .. }) = decoder.next() else { panic!("an event") };
    assert_eq!((&*event.data, event.id.as_deref()), ("after", Some("9")), "the id outlives its dropped block");
}

#[test]
fn an_endless_comment_is_neither_held_nor_an_event() {
    let mut decoder = Decoder::new(16);
    decoder.feed(&[b':'; 40]);
    assert!(matches!(decoder.next(), Some(Frame::OversizePart(raw)) if raw.len() == 40));
    decoder.feed(b"\r\ndata: x\n\n");
    assert_eq!(decoder.next(), Some(Frame::OversizeEnd { raw: "\r\n".into(), event: false }));
    assert!(matches!(decoder.next(), Some(Frame::Event { event, .. }) if event.data == "x"));
}

#[test]
fn the_tail_says_whether_an_event_was_cut_off() {
    for (input, raw, event) in [
        ("data: x\n\n", "", false),
        ("data: x\n\ndata: y", "data: y", true),
        ("data: x\n\ndata", "data", true),
        ("data: x\n\ndat", "dat", false),
        ("data: y\nid: 1\n", "data: y\nid: 1\n", true),
        ("event: end\n", "event: end\n", false),
        ("{\n  \"error\": {}\n}", "{\n  \"error\": {}\n}", false),
        (": ping", ": ping", false),
        ("\u{feff}", "", false),
    ] {
        let tail = decode(input.as_bytes(), &[], NO_CAP).tail;
        assert_eq!((&tail.raw[..], tail.event), (raw.as_bytes(), event), "{input:?}");
    }
    assert!(decode(b"data: 0123456789", &[1], 8).tail.event, "also above the cap");
}

/// Pieces that mean something to a decoder, so that random streams reach its corners.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![&b"\n"[..], b"\r", b"\r\n", b"\n\n", b"\r\n\r\n"]).prop_map(<[u8]>::to_vec),
        8 => prop::sample::select(vec![
            &b"data"[..], b"data:", b"data: ", b"event: ", b"event:", b"id: ", b"id", b"retry: ", b":", b" ", b"x", b"7",
            b"\0", "…".as_bytes(), "\u{feff}".as_bytes(), b"\xff", b"\xf0\x9f\x8c", b"\xe2\x80", b"\xed\xa0\x80", b"\xef",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_for_any_stream_cut_anywhere_under_any_cap(
        input in stream(),
        cuts in prop::collection::vec(1usize..30, 1..6),
        cap in 0usize..80,
    ) {
        check(&input, &cuts, cap);
    }

    #[test]
    fn an_event_that_is_written_is_read_back(
        name in prop::option::of("[^\r\n]{1,12}"),
        data in "([^\r]|\n| ){0,40}",
        id in prop::option::of("[^\r\n\0]{0,12}"),
        cut in 1usize..9,
    ) {
        let event = Event { name: name.map(Into::into), data: data.into(), id: id.map(Into::into) };
        let mut out = BytesMut::new();
        encode(event.name.as_deref(), &event.data, event.id.as_deref(), &mut out);
        prop_assert_eq!(decode(&out, &[cut], NO_CAP).events(), vec![event]);
    }
}

#[test]
fn every_conformance_case_obeys_the_laws_under_random_cuts_and_caps() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let cuts = prop::collection::vec(1usize..40, 1..5);
    for case in cases() {
        let input = case.input();
        for _ in 0..8 {
            use proptest::strategy::ValueTree;
            let cuts = cuts.new_tree(&mut runner).unwrap().current();
            let cap = (0usize..120).new_tree(&mut runner).unwrap().current();
            case.assert_read(&decode(&input, &cuts, NO_CAP), &format!("cuts {cuts:?}"));
            check(&input, &cuts, cap);
        }
    }
}
