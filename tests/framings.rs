//! The decoders of streams that are not SSE: against cases, against recorded answers, and their laws against
//! anything at all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[path = "../fuzz/framing_laws.rs"]
mod laws;

use laws::{check, decode};
use proptest::prelude::*;
use sidestream::framing::{Decoder, Framing};
use sidestream::sse::Frame;

const NO_CAP: usize = usize::MAX;

/// `name=data`, or `data`.
fn read(framing: Framing, input: &str) -> Vec<String> {
    let whole = decode(framing, input.as_bytes(), &[], NO_CAP);
    assert_eq!(decode(framing, input.as_bytes(), &[1], NO_CAP).events(), whole.events());
    let shown = |event: &sidestream::sse::Event| match &event.name {
        Some(name) => format!("{name}={}", event.data),
        None => event.data.to_string(),
    };
    whole.events().iter().map(shown).collect()
}

#[test]
fn a_line_is_an_event_and_a_blank_one_is_not() {
    assert_eq!(read(Framing::Lines, "{\"a\":1}\r\n\r\n  \n{\"b\":2}\n"), ["{\"a\":1}", "{\"b\":2}"]);
    assert_eq!(read(Framing::Lines, "an error, in words\n"), ["an error, in words"]);
}

#[test]
fn a_last_line_without_its_end_is_an_event_if_it_is_complete() {
    assert_eq!(read(Framing::Lines, "1\n{\"a\":1}"), ["1", "{\"a\":1}"]);
    for cut in ["1\n{\"a\":1", "1\n{\"a\":\"x", "1\nword"] {
        assert_eq!(read(Framing::Lines, cut), ["1"]);
        assert!(decode(Framing::Lines, cut.as_bytes(), &[], NO_CAP).tail.event);
    }
    assert_eq!(read(Framing::Prefixed, "0:\"a\"\nd:{\"x\":1}"), ["0=\"a\"", "d={\"x\":1}"]);
    assert_eq!(read(Framing::Prefixed, "0:\"a\"\nd:{\"x\":1"), ["0=\"a\""]);
    assert_eq!(read(Framing::Prefixed, "0:\"a\"\n{}"), ["0=\"a\""]);
}

#[test]
fn a_line_that_is_not_code_and_json_is_an_event_without_a_name() {
    let lines = "0:\"a\"\nInternal error: x\n:1\nhttp://a/\nab12:[1, 2]\n";
    assert_eq!(read(Framing::Prefixed, lines), ["0=\"a\"", "Internal error: x", ":1", "http://a/", "ab12=[1, 2]"]);
}

#[test]
fn an_element_of_the_array_is_an_event() {
    let array = "[{\"a\": \"]}\\\"\", \"b\": [1, {}]}\n,\r\n[1,[2]] , \"x,]\" ,12,true\n, null ]\n";
    let elements = ["{\"a\": \"]}\\\"\", \"b\": [1, {}]}", "[1,[2]]", "\"x,]\"", "12", "true", "null"];
    assert_eq!(read(Framing::JsonArray, array), elements);
    assert_eq!(read(Framing::JsonArray, "[]"), Vec::<String>::new());
}

#[test]
fn what_is_no_array_is_one_event() {
    assert_eq!(read(Framing::JsonArray, "\n{\"error\": {\"code\": [1]}}\n"), ["{\"error\": {\"code\": [1]}}"]);
    assert_eq!(read(Framing::JsonArray, "Bad gateway, [sorry]\n"), ["Bad gateway, [sorry]"]);
}

#[test]
fn an_array_that_is_not_closed_has_no_half_element() {
    for cut in ["[1,{\"a\":1", "[1,\"x", "[1,2"] {
        let decoded = decode(Framing::JsonArray, cut.as_bytes(), &[], NO_CAP);
        assert_eq!(decoded.events().len(), 1, "{cut}");
        assert!(decoded.tail.event, "{cut}");
    }
}

#[test]
fn an_event_comes_out_with_the_byte_that_completes_it() {
    for (framing, stream, ends) in [
        (Framing::Lines, "{\"a\":1}\n{}\n", &[7, 10][..]),
        (Framing::Prefixed, "0:\"a\"\nd:{}\n", &[5, 10][..]),
        (Framing::JsonArray, "[{\"a\":1},\"b\", 12]", &[7, 11, 16][..]),
    ] {
        let mut decoder = Decoder::new(framing, NO_CAP);
        let mut complete = Vec::new();
        for (at, byte) in stream.bytes().enumerate() {
            decoder.feed(&[byte]);
            complete.extend(decoder.by_ref().filter(|frame| matches!(frame, Frame::Event { .. })).map(|_| at));
        }
        assert_eq!(complete, ends, "{stream}");
    }
}

#[test]
fn an_event_of_exactly_the_cap_is_kept_and_one_byte_more_is_not() {
    for (framing, before, after) in
        [(Framing::Lines, "", "\n"), (Framing::Prefixed, "0:", "\n"), (Framing::JsonArray, "[", ",{}]")]
    {
        for (len, kept) in [(100, true), (101, false)] {
            let outside = if framing == Framing::Prefixed { before.len() } else { 0 };
            let stream = format!("{before}\"{}\"{after}", "x".repeat(len - 2 - outside));
            for cuts in [&[][..], &[1], &[99, 3]] {
                let decoded = decode(framing, stream.as_bytes(), cuts, 100);
                let dropped = decoded.frames.iter().any(|f| matches!(f, Frame::OversizeEnd { event: true, .. }));
                assert_eq!(dropped, !kept, "{framing:?} {len} {cuts:?}");
            }
        }
    }
}

#[test]
fn the_work_is_linear_however_small_the_chunks() {
    // Quadratic work would take minutes.
    for (framing, open) in [(Framing::Lines, "\""), (Framing::JsonArray, "[\"")] {
        let mut decoder = Decoder::new(framing, NO_CAP);
        decoder.feed(open.as_bytes());
        for _ in 0..2_000_000 {
            decoder.feed(b"x");
            assert!(decoder.next().is_none_or(|frame| matches!(frame, Frame::Filler(_))));
        }
        assert!(decoder.buffered() > 2_000_000);
    }
}

fn framings() -> impl Strategy<Value = Framing> {
    prop::sample::select(vec![Framing::Lines, Framing::Prefixed, Framing::JsonArray])
}

/// Bytes that mean something to a decoder, more often than chance would have it.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\\",
        "\\\"",
        "\n",
        "\r\n",
        "\r",
        " ",
        "0:",
        "d:",
        "{\"a\":[1,{}]}",
        "\"x\"",
        "12",
        "true",
        "null",
        "\u{fc}",
        "\u{feff}",
        "text",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(pieces.map(|piece| piece.as_bytes().to_vec()).to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Valid streams, as `expected` of the laws knows them.
fn valid() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i32>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(" , "))),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|all| {
                let member =
                    |(key, value): &(String, String)| format!("{}: {value}", serde_json::to_string(key).unwrap());
                format!("{{{}}}", all.iter().map(member).collect::<Vec<_>>().join(",\n"))
            }),
        ]
    });
    prop::collection::vec(value, 0..6).prop_map(|all| format!(" [{}]\r\n", all.join("\n, ")))
}

proptest! {
    #[test]
    fn the_laws_hold_for_anything(
        framing in framings(),
        stream in streams(),
        cuts in prop::collection::vec(1usize..9, 1..4),
        cap in 0usize..60,
    ) {
        check(framing, &stream, &cuts, cap);
    }

    #[test]
    fn the_laws_hold_for_arrays_as_they_should_be(
        stream in valid(),
        cuts in prop::collection::vec(1usize..40, 1..4),
        cap in 0usize..200,
    ) {
        check(Framing::JsonArray, stream.as_bytes(), &cuts, cap);
    }
}

#[test]
fn the_recorded_answers_obey_the_laws() {
    for (framing, recording) in [
        (Framing::Lines, &include_bytes!("data/sse/visible/ollama-ndjson__chat.ndjson")[..]),
        (Framing::Prefixed, include_bytes!("data/sse/visible/vercel-data-stream-v4__text.txt")),
        (Framing::Prefixed, include_bytes!("data/sse/visible/vercel-data-stream-v4__tool.txt")),
        (Framing::JsonArray, include_bytes!("data/sse/visible/gemini-json-array__text.json")),
    ] {
        assert!(decode(framing, recording, &[], NO_CAP).events().len() > 2);
        for (cuts, cap) in [(&[1][..], 16 << 20), (&[7, 1400], 4096), (&[64 << 10], 100)] {
            check(framing, recording, cuts, cap);
        }
    }
}
