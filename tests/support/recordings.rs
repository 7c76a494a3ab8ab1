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

    /// The same of its first bytes, in whatever framing it has.
    pub(crate) fn events_before(&self, cut: usize) -> Vec<Event> {
        let stream = &self.body[..cut];
        let whole = std::str::from_utf8(&stream[..whole_part(&self.file, stream)]);
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into(), id: String::new() };
        match self.file.rsplit_once('.').unwrap().1 {
            "json" => {
                let text = whole.unwrap().trim_end().trim_end_matches([',', ']']);
                let closed = if text.is_empty() { "[]".to_owned() } else { format!("{text}]") };
                let elements: Vec<&serde_json::value::RawValue> = serde_json::from_str(&closed).unwrap();
                elements.into_iter().map(|element| event("message", element.get())).collect()
            }
            "txt" => {
                whole.unwrap().lines().map(|line| line.split_once(':').unwrap()).map(|(c, d)| event(c, d)).collect()
            }
            "ndjson" => whole.unwrap().lines().map(|line| event("message", line)).collect(),
            _ => events_in(stream),
        }
    }

    /// The same where the body ended there as HTTP says: the last line of a stream of lines needs no line end, if
    /// it is whole.
    pub(crate) fn events_to(&self, cut: usize) -> Vec<Event> {
        let mut events = self.events_before(cut);
        let rest = &self.body[whole_part(&self.file, &self.body[..cut])..cut];
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        let last = match (std::str::from_utf8(rest), self.file.rsplit_once('.').unwrap().1) {
            (Ok(line), "ndjson") if json(line) => Some(("message", line)),
            (Ok(line), "txt") => line.split_once(':').filter(|(_, data)| json(data)),
            _ => None,
        };
        let event = |(name, data): (&str, &str)| Event { name: name.into(), data: data.into(), id: String::new() };
        events.extend(last.map(event));
        events
    }

    /// What a reader who is not ours says of it, as index.json has it.
    pub(crate) fn known(&self) -> serde_json::Value {
        let all: Vec<serde_json::Value> = serde_json::from_str(include_str!("../data/sse/visible/index.json")).unwrap();
        all.into_iter().find(|known| known["file"] == *self.file).unwrap()
    }

    /// Our name of its dialect.
    pub(crate) fn dialect(&self) -> &str {
        match self.file.split_once("__").unwrap().0 {
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

    /// The content type of its answer.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.file.rsplit_once('.').unwrap().1 {
            "json" => "application/json; charset=UTF-8",
            "txt" => "text/plain; charset=utf-8",
            "ndjson" => "application/x-ndjson",
            _ => "text/event-stream; charset=utf-8",
        }
    }

    /// Where the tests ask for it: the path says what it is, where its head does not.
    pub(crate) fn path(&self) -> String {
        let framing = match self.file.rsplit_once('.').unwrap().1 {
            "json" => "array",
            "txt" => "prefixed",
            "ndjson" => "lines",
            _ => "sse",
        };
        format!("/{framing}/{}", self.file)
    }
}

/// The part of `stream` that is whole: up to the end of the last event, blank line or comment that is complete.
/// Of a stream that breaks off there, the direct caller has this and no byte more.
pub(crate) fn whole_part(file: &str, stream: &[u8]) -> usize {
    if file.ends_with(".json") {
        return whole_elements(stream);
    }
    if !file.contains(".sse") {
        return stream.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    }
    let (mut whole, mut line, mut begun) = (0, 0, false);
    for (at, byte) in stream.iter().enumerate().filter(|(_, byte)| matches!(byte, b'\n' | b'\r')) {
        let rest_of_crlf = *byte == b'\n' && at > 0 && stream[at - 1] == b'\r';
        if rest_of_crlf {
            whole += usize::from(whole == at);
        } else if at == line || (stream[line] == b':' && !begun) {
            (whole, begun) = (at + 1, false);
        } else {
            begun |= stream[line] != b':';
        }
        line = at + 1;
    }
    whole
}

/// The same of a JSON array.
fn whole_elements(stream: &[u8]) -> usize {
    let (mut whole, mut depth, mut string, mut escaped) = (0, 0, false, false);
    for (at, byte) in stream.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => string = !string,
            b'{' | b'[' if !string => depth += 1,
            b'}' | b']' if !string => depth -= 1,
            _ => {}
        }
        whole = if depth < 2 { at + 1 } else { whole };
    }
    whole
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
