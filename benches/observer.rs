//! What it costs to look at every event of a run: nearly all of them are deltas that show nothing.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sidestream::dialect::{Dialects, Observer};

const DELTAS: [(&str, &str); 4] = [
    (
        "openai-chat",
        r#"{"id":"chatcmpl-CMKB4CzjM9AbvNcftqEsFcWBSrZNT","object":"chat.completion.chunk","created":1759436814,"model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{"content":" of"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
    ),
    (
        "openai-responses",
        r#"{"type":"response.output_text.delta","sequence_number":17,"item_id":"msg_0d1a2b3c4d5e6f708192a3b4c5d6e7f8","output_index":0,"content_index":0,"delta":" of","logprobs":[],"obfuscation":"BEZvnVuFFabcdefghijklm"}"#,
    ),
    ("anthropic-messages", r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" of"}}"#),
    ("ai-sdk", r#"{"type":"text-delta","id":"t1","delta":" of"}"#),
];

/// An event of a run whose dialect is known.
fn known(c: &mut Criterion) {
    let dialects = Arc::new(Dialects::new([]));
    let mut group = c.benchmark_group("observe a delta");
    group.throughput(Throughput::Elements(1));
    for (name, delta) in DELTAS {
        let mut observer = Observer::new(dialects.clone(), dialects.named(name).cloned());
        // It is known from its first events, or because it is said to be.
        for first in ["[DONE]", r#"{"type":"message_stop"}"#] {
            observer.event(None, first);
        }
        group.bench_function(name, |b| b.iter(|| observer.event(None, black_box(delta))));
    }
    group.finish();
}

/// The first eight events of a run whose dialect nobody knows: every dialect is asked.
fn unknown(c: &mut Criterion) {
    let dialects = Arc::new(Dialects::new([]));
    let event = format!(r#"{{"kind":"token","text":"{}"}}"#, "x".repeat(180));
    let mut group = c.benchmark_group("recognise nothing");
    group.throughput(Throughput::Elements(8));
    group.bench_function("8 events", |b| {
        b.iter(|| {
            let mut observer = Observer::new(dialects.clone(), None);
            (0..8).for_each(|_| observer.event(None, black_box(&event)));
            observer
        })
    });
    group.finish();
}

criterion_group!(benches, known, unknown);
criterion_main!(benches);
