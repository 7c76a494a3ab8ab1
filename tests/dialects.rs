//! The built-in dialects against recorded answers of real services: each recording is of its dialect and of no other,
//! has the text, the end and the outcome that an independent reader found in it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sidestream::dialect::{Dialect, Dialects, Observed, Observer, RECOGNISED_WITHIN, TextKind};
use sidestream::framing::Framing;
use sidestream::sse::{Decoder, Frame};

/// A recording as tests/data/sse/visible/index.json describes it.
#[derive(Deserialize)]
struct Recording {
    file: String,
    dialect: String,
    outcome: String,
    text_chars: Option<usize>,
    text_sha256: Option<String>,
}

/// An event, or bytes that carry none.
enum Piece {
    Event(Option<String>, String),
    Outside(Vec<u8>),
}

impl Recording {
    /// Our name of its dialect.
    fn dialect(&self) -> &str {
        match &*self.dialect {
            "openai-completions-legacy" => "openai-completions",
            "gemini-sse" => "gemini",
            "gemini-json-array" => "gemini-array",
            "vercel-ui-message-stream" => "ai-sdk",
            "vercel-data-stream-v4" => "ai-sdk-4",
            "langgraph-runs-stream" => "langgraph",
            "langgraph-v3-events" => "langgraph-events",
            "mcp-streamable-http" => "mcp",
            "cohere-v2" => "cohere",
            "ollama-ndjson" => "ollama",
            same => same,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sse/visible").join(&self.file);
        let bytes = fs::read(path).unwrap();
        if !self.file.ends_with(".gz") {
            return bytes;
        }
        let mut stream = Vec::new();
        // Recorded off the wire: the stream may have been cut before its gzip trailer.
        let _ = flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut stream);
        stream
    }

    /// Its pieces, and what is left unfinished.
    fn pieces(&self, framing: Framing) -> (Vec<Piece>, Vec<u8>) {
        let bytes = self.bytes();
        let lines = || std::str::from_utf8(&bytes).unwrap().lines().filter(|line| !line.is_empty());
        let event = |name: Option<&str>, data: &str| Piece::Event(name.map(str::to_owned), data.to_owned());
        let pieces = match framing {
            Framing::Sse => {
                let mut decoder = Decoder::new(16 << 20);
                decoder.feed(&bytes);
                let pieces = decoder.by_ref().map(|frame| match frame {
                    Frame::Event { event: read, .. } => event(read.name.as_deref(), &read.data),
                    frame => Piece::Outside(frame.raw().to_vec()),
                });
                return (pieces.collect(), decoder.finish().raw.to_vec());
            }
            Framing::Lines => lines().map(|line| event(None, line)).collect(),
            Framing::Prefixed => {
                lines().filter_map(|line| line.split_once(':')).map(|(code, json)| event(Some(code), json)).collect()
            }
            Framing::JsonArray => {
                let values: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
                values.iter().map(|value| event(None, &value.to_string())).collect()
            }
        };
        (pieces, Vec::new())
    }

    fn observed(&self, dialects: &Arc<Dialects>, named: Option<&str>, events: usize) -> Observed {
        let named = named.map(|name| dialects.named(name).unwrap().clone());
        let framing = dialects.named(self.dialect()).unwrap().framing;
        let mut observer = Observer::new(dialects.clone(), named);
        let (pieces, tail) = self.pieces(framing);
        let mut left = events;
        for piece in pieces {
            match piece {
                Piece::Event(..) if left == 0 => return observer.finish(b""),
                Piece::Event(name, data) => {
                    left -= 1;
                    observer.event(name.as_deref(), &data)
                }
                Piece::Outside(raw) => observer.outside(&raw),
            }
        }
        observer.finish(&tail)
    }
}

fn recordings() -> Vec<Recording> {
    let all: Vec<Recording> = serde_json::from_str(include_str!("data/sse/visible/index.json")).unwrap();
    assert_eq!(all.len(), 96);
    all
}

fn builtin() -> Arc<Dialects> {
    Arc::new(Dialects::new([]))
}

/// The answer of a run: what its events add; where events repeat everything, what the last of each kind has.
fn answer(dialect: &Dialect, pieces: &[Piece]) -> String {
    let mut answer = String::new();
    let mut repeated: BTreeMap<String, String> = BTreeMap::new();
    for piece in pieces {
        let Piece::Event(name, data) = piece else { continue };
        let name = name.as_deref();
        let Some(cumulative) = dialect.cumulative.iter().find(|all| all.when.is_shown_by(name, data)) else {
            let texts = dialect.texts(name, data).into_iter().filter(|text| text.kind == TextKind::Answer);
            answer.extend(texts.map(|text| text.text));
            continue;
        };
        let json: Value = serde_json::from_str(data).unwrap();
        let at = |path: &sidestream::dialect::Path| path.find(&json, &[]).into_iter().map(|(_, v)| v.clone());
        let same: Vec<_> = cumulative.same.iter().flat_map(at).collect();
        let texts = cumulative.text.iter().flat_map(at).filter_map(|v| v.as_str().map(str::to_owned));
        repeated.insert(format!("{same:?}"), texts.collect());
    }
    answer.extend(repeated.into_values());
    answer
}

#[test]
fn every_recording_is_of_its_dialect_and_of_no_other() {
    let dialects = builtin();
    for recording in recordings() {
        let dialect = dialects.named(recording.dialect()).expect(&recording.file);
        if dialect.framing != Framing::Sse {
            // Known by the route or the answer's head: what its events show is asked of it alone.
            let observed = recording.observed(&dialects, Some(&dialect.name), usize::MAX);
            assert_eq!(observed.dialect.map(|dialect| dialect.name.clone()), Some(dialect.name.clone()));
            continue;
        }
        let (pieces, _) = recording.pieces(dialect.framing);
        let events = pieces.iter().filter_map(|piece| match piece {
            Piece::Event(name, data) => Some((name.as_deref(), &**data)),
            Piece::Outside(_) => None,
        });
        let events: Vec<_> = events.take(usize::try_from(RECOGNISED_WITHIN).unwrap()).collect();
        let shown = events.iter().find_map(|(name, data)| {
            let shows = |dialect: &&Arc<Dialect>| {
                dialect.framing == Framing::Sse && dialect.recognise.iter().any(|mark| mark.is_shown_by(*name, data))
            };
            let shown: Vec<&str> = dialects.iter().filter(shows).map(|dialect| &*dialect.name).collect();
            let recognised = dialects.recognise(*name, data).map(|dialect| &*dialect.name);
            assert_eq!(shown.first().copied(), recognised);
            (!shown.is_empty()).then_some(shown)
        });
        match &*dialect.name {
            "generic" => assert_eq!(shown, None, "{}", recording.file),
            // Both are JSON-RPC: A2A is asked before MCP.
            "a2a" => assert_eq!(shown, Some(vec!["a2a", "mcp"]), "{}", recording.file),
            name => assert_eq!(shown, Some(vec![name]), "{}", recording.file),
        }
    }
}

#[test]
fn every_recording_has_the_answer_that_others_read_in_it() {
    let dialects = builtin();
    for recording in recordings() {
        let (Some(chars), Some(sha256)) = (recording.text_chars, &recording.text_sha256) else { continue };
        if recording.dialect == "mcp-streamable-http" {
            // Its text is in one response, as a whole: nothing of it grows.
            continue;
        }
        let dialect = dialects.named(recording.dialect()).unwrap();
        let answer = answer(dialect, &recording.pieces(dialect.framing).0);
        let digest: String = Sha256::digest(&answer).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((answer.chars().count(), &digest), (chars, sha256), "{}: {answer}", recording.file);
    }
}

#[test]
fn every_recording_ends_as_others_saw_it_end() {
    let dialects = builtin();
    for recording in recordings() {
        for named in [None, Some(recording.dialect())] {
            let dialect = dialects.named(recording.dialect()).unwrap();
            if named.is_none() && dialect.framing != Framing::Sse {
                continue;
            }
            let observed = recording.observed(&dialects, named, usize::MAX);
            let outcome = match &observed {
                observed if observed.failed => "failed",
                observed if observed.is_truncated() => "truncated",
                observed if observed.end => "finished",
                observed if observed.dialect.is_none() || &*recording.dialect == "generic" => "unknown",
                _ => "ended (no marker in the stream)",
            };
            assert_eq!(outcome, recording.outcome, "{}: {observed:?}", recording.file);
            assert!(observed.contradicts.is_none(), "{}", recording.file);
            assert_eq!(observed.error.is_some(), observed.failed, "{}", recording.file);
        }
    }
}

#[test]
fn a_recording_that_is_cut_before_its_end_is_truncated() {
    let dialects = builtin();
    let mut cut = 0;
    for recording in recordings().iter().filter(|recording| recording.outcome == "finished") {
        let dialect = dialects.named(recording.dialect()).unwrap();
        let (pieces, _) = recording.pieces(dialect.framing);
        let events = pieces.iter().filter(|piece| matches!(piece, Piece::Event(..))).count();
        let whole = |events| !recording.observed(&dialects, Some(&dialect.name), events).is_truncated();
        let needed = (0..=events).find(|events| whole(*events)).unwrap();
        assert!(needed == events || whole(events), "{}", recording.file);
        // Before the end there is at most what says how it was: a finish reason, token counts.
        assert!(events - needed <= 3, "{}: whole after {needed} of {events}", recording.file);
        cut += needed;
    }
    assert!(cut > 2_000, "{cut}");
}

#[test]
fn the_token_counts_of_the_recordings_are_found() {
    let dialects = builtin();
    let counted = |file: &str| {
        let recordings = recordings();
        let recording = recordings.iter().find(|recording| recording.file == file).expect(file);
        let tokens = recording.observed(&dialects, Some(recording.dialect()), usize::MAX).tokens;
        (tokens.input, tokens.output)
    };
    for (file, input, output) in [
        ("openai-chat__openai-toolcall.sse", 398, 10),
        ("openai-chat__deepseek-reasoning_content.sse", 6, 212),
        ("vercel-data-stream-v4__text.txt", 3, 10),
        ("gemini-json-array__text.json", 11, 2 + 291),
    ] {
        assert_eq!(counted(file), (Some(input), Some(output)), "{file}");
    }
    let with_both = recordings().into_iter().filter(|recording| {
        let tokens = recording.observed(&dialects, Some(recording.dialect()), usize::MAX).tokens;
        tokens.input.is_some() && tokens.output.is_some()
    });
    assert!(with_both.count() > 70);
}
