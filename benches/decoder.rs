//! What one event costs in the decoder, and that cost stays linear however small the chunks are.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sidestream::sse::{Decoder, Frame};

/// 212 events of an OpenAI-compatible chat stream, as recorded.
const RECORDING: &[u8] = include_bytes!("../tests/data/sse/visible/openai-chat__deepseek-reasoning_content.sse");
/// One event of this recording is a line of 100 KB.
const LARGE: &[u8] =
    include_bytes!("../tests/data/sse/visible/openai-responses__openai-code-interpreter-100KB-event.sse");

fn events(input: &[u8], chunk: usize) -> u64 {
    let mut decoder = Decoder::new(16 << 20);
    let mut events = 0;
    for chunk in input.chunks(chunk) {
        decoder.feed(chunk);
        for frame in decoder.by_ref() {
            events += u64::from(matches!(black_box(frame), Frame::Event { .. }));
        }
    }
    events
}

/// Throughput in elements: one element is one event.
fn recordings(c: &mut Criterion) {
    let mut group = c.benchmark_group("recording");
    for (name, input) in [("chat", RECORDING), ("large", LARGE)] {
        group.throughput(Throughput::Elements(events(input, input.len())));
        for chunk in [1, 320, 1460, 64 << 10] {
            let id = BenchmarkId::new(name, format!("{chunk} bytes a chunk"));
            group.bench_with_input(id, &chunk, |b, &chunk| b.iter(|| events(input, chunk)));
        }
    }
    group.finish();
}

/// Throughput in bytes: the same for both sizes, or the work is not linear.
fn one_line_byte_by_byte(c: &mut Criterion) {
    let mut group = c.benchmark_group("one line, byte by byte");
    group.sample_size(10);
    for mebibytes in [1, 8] {
        let mut input = b"data: ".to_vec();
        input.resize(mebibytes << 20, b'x');
        input.extend_from_slice(b"\n\n");
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{mebibytes} MiB")), &input, |b, input| {
            b.iter(|| events(input, 1))
        });
    }
    group.finish();
}

criterion_group!(benches, recordings, one_line_byte_by_byte);
criterion_main!(benches);
