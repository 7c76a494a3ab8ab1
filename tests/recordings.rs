//! The decoder against recorded answers of real services, with independent parsers as judges.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[path = "../fuzz/laws.rs"]
mod laws;

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use laws::{Seen, decode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sidestream::sse::encode;

const NO_CAP: usize = usize::MAX;

/// A recording as tests/data/sse/visible/index.json describes it, by a parser that is not ours.
#[derive(Deserialize)]
struct Recording {
    file: String,
    sha256: String,
    /// Not SSE where there is none.
    events: Option<usize>,
    #[serde(default)]
    event_names: Vec<String>,
    #[serde(default)]
    last_event_id: String,
    retry: Option<u64>,
    #[serde(default)]
    comment_lines: usize,
}

impl Recording {
    /// The stream, decompressed where it was recorded compressed.
    fn stream(&self) -> Vec<u8> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sse/visible").join(&self.file);
        let bytes = fs::read(path).unwrap();
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, self.sha256, "{} is not what was recorded", self.file);
        if !self.file.ends_with(".gz") {
            return bytes;
        }
        let mut stream = Vec::new();
        // Recorded off the wire: the stream may have been cut before its gzip trailer.
        let _ = flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut stream);
        stream
    }
}

fn recordings() -> Vec<Recording> {
    let all: Vec<Recording> = serde_json::from_str(include_str!("data/sse/visible/index.json")).unwrap();
    assert_eq!(all.len(), 96);
    let sse: Vec<Recording> = all.into_iter().filter(|r| r.events.is_some()).collect();
    assert_eq!(sse.len(), 92);
    sse
}

#[test]
fn every_recording_has_the_events_that_others_counted_however_it_is_cut() {
    for recording in recordings() {
        let stream = recording.stream();
        let whole = decode(&stream, &[], NO_CAP);
        for cut in [1, 7, 64 << 10] {
            let decoded = decode(&stream, &[cut], NO_CAP);
            let what = format!("{} in chunks of {cut}", recording.file);
            let seen = decoded.seen();
            assert_eq!(Some(seen.len()), recording.events, "{what}");
            let mut names: Vec<&str> = seen.iter().map(|e| &*e.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names, recording.event_names, "{what}");
            assert_eq!(decoded.last_event_id, recording.last_event_id, "{what}");
            assert_eq!(decoded.retry, recording.retry, "{what}");
            assert_eq!(decoded.events(), whole.events(), "{what}");
        }
    }
}

#[test]
fn every_recording_comes_out_byte_for_byte_and_obeys_the_laws() {
    for recording in recordings() {
        let stream = recording.stream();
        for (cuts, cap) in [([1, 2], 16 << 20), ([13, 1400], 4096), ([64 << 10, 1], 200)] {
            laws::check(&stream, &cuts, cap);
        }
    }
}

#[test]
fn comments_of_a_recording_are_handed_on_as_filler_between_events() {
    let mut comments = 0;
    for recording in recordings().iter().filter(|r| r.comment_lines > 0) {
        let decoded = decode(&recording.stream(), &[], NO_CAP);
        for frame in decoded.frames {
            if let sidestream::sse::Frame::Filler(raw) = frame {
                comments += raw.split(|&b| b == b'\n').filter(|line| line.starts_with(b":")).count();
            }
        }
    }
    let recorded: usize = recordings().iter().map(|r| r.comment_lines).sum();
    assert!(comments > 0 && comments <= recorded, "{comments} of {recorded}");
}

#[test]
fn an_independent_parser_reads_the_same_from_every_recording() {
    for recording in recordings() {
        let stream = recording.stream();
        let mut decoder = sse_core::SseDecoder::with_limit(std::num::NonZeroUsize::MAX);
        let mut buffer = Bytes::from(stream.clone());
        let mut judged = Vec::new();
        while let Some(event) = decoder.next(&mut buffer) {
            if let sse_core::SseEvent::Message(event) = event.unwrap() {
                let id = event.last_event_id.as_deref().unwrap_or_default().to_owned();
                judged.push(Seen { name: event.event.into_owned(), data: event.data, id });
            }
        }
        assert_eq!(decode(&stream, &[], NO_CAP).seen(), judged, "{}", recording.file);
    }
}

#[tokio::test]
async fn a_second_independent_parser_reads_the_same_from_every_recording() {
    for recording in recordings() {
        let bytes = Bytes::from(recording.stream());
        let chunks = stream::iter([Ok::<_, std::convert::Infallible>(bytes.clone())]);
        let mut judged = Vec::new();
        let mut parser = sse_stream::SseByteStream::new(chunks);
        while let Some(block) = parser.next().await {
            let block = block.unwrap();
            if let Some(data) = block.data {
                judged.push((block.event.filter(|name| !name.is_empty()).unwrap_or("message".into()), data));
            }
        }
        let seen: Vec<_> = decode(&bytes, &[], NO_CAP).seen().into_iter().map(|e| (e.name, e.data)).collect();
        assert_eq!(seen, judged, "{}", recording.file);
    }
}

#[test]
fn every_recording_survives_being_written_again_in_the_canonical_framing() {
    for recording in recordings() {
        let events = decode(&recording.stream(), &[], NO_CAP).events();
        let mut written = BytesMut::new();
        for event in &events {
            encode(event.name.as_deref(), &event.data, event.id.as_deref(), &mut written);
        }
        assert_eq!(decode(&written, &[5, 64], NO_CAP).events(), events, "{}", recording.file);
    }
}
