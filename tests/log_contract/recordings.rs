//! Real answers: every offset of every recording can be resumed at.

use std::io::Read as _;
use std::path::PathBuf;

use sidestream::log::*;
use sidestream::session::*;
use sse_core::{SseDecoder, SseEvent};

use crate::actors::*;
use crate::stores::Store;

/// The recorded SSE answers: name and body, decompressed.
fn recordings() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sse/visible");
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let body = std::fs::read(&path).unwrap();
        if name.ends_with(".sse") {
            found.push((name, body));
        } else if name.ends_with(".sse.gz") {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
            found.push((name, plain));
        }
    }
    found.sort();
    found
}

/// The events of an answer, as a parser that is not ours reads them.
fn events(owner: &Owner, body: &[u8]) -> Vec<Record> {
    let mut decoder = SseDecoder::new();
    let mut rest = body;
    let mut records = Vec::new();
    while let Some(event) = decoder.next(&mut rest) {
        if let SseEvent::Message(message) = event.unwrap() {
            records.push(Record {
                event: Some((*message.event).into()),
                id: message.last_event_id.map(|id| (*id).into()),
                ..owner.event(&message.data)
            });
        }
    }
    records
}

async fn every_recording_can_be_resumed_at_every_offset(store: Store) {
    let log = store.open().await;
    let recordings = recordings();
    assert!(recordings.len() > 80, "{} recordings", recordings.len());
    let mut total = 0;
    for (i, (name, body)) in recordings.iter().enumerate() {
        let mut owner = Owner::new(&format!("recording-{i}"), &format!("run-{i}"));
        let started = owner.open(&*log).await;
        let records = events(&owner, body);
        total += records.len();
        for batch in records.chunks(16) {
            let answer = log.append(owner.append_records(owner.n + 1, batch.to_vec())).await.unwrap();
            assert!(matches!(answer, Appended::Stored { .. }), "{name}: {answer:?}");
            owner.n += batch.len() as u64;
        }
        owner.ends(&*log, Terminal::Completed).await;

        let all = read_all(&*log, &owner.session).await;
        let stored: Vec<&Record> = all[1..all.len() - 1].iter().map(|entry| &entry.record).collect();
        assert_eq!(stored, records.iter().collect::<Vec<_>>(), "{name}");
        assert_eq!(all[0].offset, started);
        for (seq, entry) in all.iter().enumerate() {
            let suffix = read_after(&*log, &owner.session, entry.offset).await;
            assert_eq!(suffix, all[seq + 1..], "{name} after {}", entry.offset);
        }
    }
    assert!(total > 2000, "{total} events");
}

on_every_store!(every_recording_can_be_resumed_at_every_offset);
