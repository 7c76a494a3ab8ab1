//! The recorded answers, and what a parser that is not ours reads from them.

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;

use bytes::Bytes;

/// One dispatched event of a stream, with the last event id that a reader then has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

/// One recorded answer.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    /// Its file name.
    pub(crate) file: String,
    /// The answer's body, decompressed.
    pub(crate) body: Bytes,
}

impl Recording {
    /// Whether it is an event stream.
    pub(crate) fn is_sse(&self) -> bool {
        self.file.contains(".sse")
    }

    /// What an independent parser reads from it.
    pub(crate) fn events(&self) -> Vec<Event> {
        events_in(&self.body)
    }
}

/// Every recording, by file name.
pub(crate) fn recordings() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sse/visible");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !file.contains("__") {
            continue;
        }
        let mut body = std::fs::read(&path).unwrap();
        if file.ends_with(".gz") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        all.push(Recording { file, body: body.into() });
    }
    all.sort_by(|a, b| a.file.cmp(&b.file));
    assert_eq!(all.len(), 96);
    all
}

/// What an independent parser reads from a stream.
pub(crate) fn events_in(stream: &[u8]) -> Vec<Event> {
    events_in_after("", stream)
}

/// The same for a reader that resumes: it knows `id` as its last event id.
pub(crate) fn events_in_after(id: &str, stream: &[u8]) -> Vec<Event> {
    let mut decoder = sse_core::SseDecoder::with_limit(NonZeroUsize::MAX);
    let mut known = Bytes::from(format!("id: {id}\n\n"));
    assert!(decoder.next(&mut known).is_none());
    let mut stream = Bytes::copy_from_slice(stream);
    let mut events = Vec::new();
    while let Some(event) = decoder.next(&mut stream) {
        if let sse_core::SseEvent::Message(event) = event.unwrap() {
            let id = event.last_event_id.as_deref().unwrap_or_default().to_owned();
            events.push(Event { name: event.event.into_owned(), data: event.data, id });
        }
    }
    events
}
