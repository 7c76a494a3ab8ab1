//! What it costs to merge a long answer of one-token deltas. The bound is 1 ms for 20,000 of them.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sidestream::dialect::Dialect;
use sidestream::dialect::compact::Compactor;
use sidestream::session::{Entry, Kind, Offset, Record, RunId};

const DELTAS: u64 = 20_000;

const WORDS: [&str; 8] = ["The", " capital", " of", " Mexico", " is", " \\\"M\u{e9}xico\\\"", ",", " a city\\n"];

/// A dialect, and one of its deltas: `{}` is the text, `#` a number that counts, `~` spaces that vary.
const STREAMS: [(&str, &str, Option<&str>, &str); 3] = [
    (
        "chat",
        "name = \"chat\"\ncounters = [\"/obfuscation\"]\n[[delta]]\ntext = \"/choices/*/delta/content\"",
        None,
        r#"{"id":"chatcmpl-CMKB4CzjM9AbvNcftqEsFcWBSrZNT","object":"chat.completion.chunk","created":1759436814,"model":"gpt-4o-2024-08-06","service_tier":"default","choices":[{"index":0,"delta":{"content":"{}"},"finish_reason":null}],"obfuscation":"pu#"}"#,
    ),
    (
        "responses",
        "name = \"responses\"\ncounters = [\"/sequence_number\"]\n[[delta]]\ntext = \"/delta\"",
        Some("response.output_text.delta"),
        r#"{"type":"response.output_text.delta","sequence_number":#,"item_id":"msg_67e554a28bec8191b56d3e2331eff88006c52f0e511c76ed","output_index":0,"content_index":0,"delta":"{}","logprobs":[]}"#,
    ),
    (
        "anthropic",
        "name = \"anthropic\"\n[[delta]]\ntext = \"/delta/text\"",
        Some("content_block_delta"),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"{}"}~}"#,
    ),
];

fn entries(event: Option<&'static str>, form: &str) -> Vec<Arc<Entry>> {
    let run = RunId::from_random(7);
    let entry = |n: u64| {
        let number = n as usize;
        let data = form
            .replace("{}", WORDS[number % WORDS.len()])
            .replace('#', &n.to_string())
            .replace('~', &" ".repeat(number % 13));
        let record = Record {
            kind: Kind::Event,
            run: Some(run.clone()),
            source: None,
            event: event.map(Into::into),
            id: None,
            data: data.into(),
        };
        Arc::new(Entry { offset: Offset::new(1_790_000_000_000 + n, n + 1), record })
    };
    (0..DELTAS).map(entry).collect()
}

/// Throughput in elements: one element is one delta.
fn deltas(c: &mut Criterion) {
    let mut group = c.benchmark_group("compact");
    group.throughput(Throughput::Elements(DELTAS));
    for (name, description, event, form) in STREAMS {
        let dialect = Arc::new(Dialect::read(description).expect("the description is one"));
        let entries = entries(event, form);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched(
                || entries.clone(),
                |entries| {
                    let (mut compactor, mut out) = (Compactor::default(), Vec::new());
                    for entry in entries {
                        compactor.push(entry, |_| Some(dialect.clone()), &mut out);
                    }
                    compactor.flush(&mut out);
                    assert!(out.len() < 10);
                    black_box(out)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, deltas);
criterion_main!(benches);
