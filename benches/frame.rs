//! What it costs to turn an entry into the frame that all its subscribers share, and to mark one
//! for a replay.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sidestream::session::{Entry, Kind, Offset, Record, RunId, SessionId};
use sidestream::sse::{Decoder, Frame};
use sidestream::wire::{entry_frame, with_field};

/// 212 events of an OpenAI-compatible chat stream, as recorded.
const RECORDING: &[u8] = include_bytes!("../tests/data/sse/visible/openai-chat__deepseek-reasoning_content.sse");

/// The recording as it stands in the log.
fn entries() -> Vec<Entry> {
    let run = RunId::from_random(7);
    let mut decoder = Decoder::new(16 << 20);
    decoder.feed(RECORDING);
    let mut entries = Vec::new();
    for frame in decoder.by_ref() {
        let Frame::Event { event, .. } = frame else { continue };
        let (event, id, data) = (event.name, event.id, event.data);
        let record = Record { kind: Kind::Event, run: Some(run.clone()), source: None, event, id, data };
        entries.push(Entry { offset: Offset::new(1_790_000_000_000, entries.len() as u64 + 1), record });
    }
    entries
}

/// Throughput in elements: one element is one frame.
fn frames(c: &mut Criterion) {
    let (entries, session) = (entries(), SessionId::from_random(9));
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function(BenchmarkId::from_parameter("live"), |b| {
        b.iter(|| entries.iter().for_each(|entry| drop(black_box(entry_frame(&session, entry)))));
    });
    let frames: Vec<String> = entries.iter().map(|entry| entry_frame(&session, entry)).collect();
    group.bench_function(BenchmarkId::from_parameter("marked as replay, encoded before"), |b| {
        b.iter(|| frames.iter().for_each(|frame| drop(black_box(with_field(frame, "replay", "true")))));
    });
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
