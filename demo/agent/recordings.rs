//! The recorded answers: their bytes, what they were served as, and how they are cut into writes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};

/// Shown by the demo, in turn: texts that read well, in as many dialects.
const CURATED: [&str; 9] = [
    "openai-chat__mistral-magistral.sse",
    "anthropic-messages__text-url-prompt.sse",
    "vercel-ui-message-stream__text.sse",
    "openai-responses__openai-web-search.sse",
    "langgraph-runs-stream__resumable-ids.sse",
    "openai-chat__openrouter-comments-reasoning.sse",
    "gemini-sse__grounding-nonascii.sse",
    "anthropic-messages__web-search-nonascii.sse",
    "ag-ui__dotnet-backend-tools.sse",
];

/// All recordings of a folder, by file name.
pub(crate) struct Recordings(BTreeMap<String, Recording>);

/// One recorded answer.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    body: Bytes,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    is_gzip: bool,
}

impl Recordings {
    /// Reads a folder. Content types are those that its MANIFEST.md says were seen.
    pub(crate) fn load(folder: &Path) -> io::Result<Self> {
        let manifest = std::fs::read_to_string(folder.join("MANIFEST.md"))?;
        let mut recordings = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(file) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some((dialect, _)) = file.split_once("__") else { continue };
            let is_gzip = file.ends_with(".gz");
            let mut headers = vec![(CONTENT_TYPE, content_type(file, &manifest))];
            if is_gzip {
                headers.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            }
            headers.extend(dialect_header(dialect));
            let recording = Recording { body: std::fs::read(&path)?.into(), headers, is_gzip };
            recordings.insert(file.to_owned(), recording);
        }
        if recordings.is_empty() {
            return Err(io::Error::other("there is none"));
        }
        Ok(Recordings(recordings))
    }

    /// The recording of this file name.
    pub(crate) fn named(&self, file: &str) -> Option<&Recording> {
        self.0.get(file)
    }

    /// The recording that the demo shows as its `turn`th.
    pub(crate) fn in_turn(&self, turn: u64) -> Option<&Recording> {
        self.pick(CURATED.into_iter(), turn)
    }

    /// The `turn`th recording of a dialect: the curated ones where there are any.
    pub(crate) fn of_dialect(&self, dialect: &str, turn: u64) -> Option<&Recording> {
        let of = |file: &&str| file.split_once("__").is_some_and(|(d, _)| d == dialect);
        let curated = self.pick(CURATED.into_iter().filter(of), turn);
        curated.or_else(|| self.pick(self.0.keys().map(String::as_str).filter(of), turn))
    }

    fn pick<'a>(&self, files: impl Iterator<Item = &'a str>, turn: u64) -> Option<&Recording> {
        let here: Vec<&Recording> = files.filter_map(|file| self.0.get(file)).collect();
        let turn = usize::try_from(turn % here.len().max(1) as u64).unwrap_or_default();
        here.get(turn).copied()
    }
}

impl Recording {
    /// The body in writes of `len` bytes.
    pub(crate) fn in_writes_of(&self, len: usize) -> impl Iterator<Item = Bytes> + Send + use<> {
        let body = self.body.clone();
        let starts = (0..body.len()).step_by(len.max(1));
        starts.map(move |start| body.slice(start..body.len().min(start.saturating_add(len.max(1)))))
    }

    /// The body in one write per event; of a compressed one, per flush of its compressor; of
    /// anything that is not SSE, per line.
    pub(crate) fn by_event(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let ends: &[&[u8]] = match () {
            // An empty stored block, as Z_SYNC_FLUSH leaves it (RFC 1951, 3.2.4).
            () if self.is_gzip => &[b"\x00\x00\xff\xff"],
            () if self.is_event_stream() => &[b"\n\n", b"\r\n\r\n"],
            () => &[b"\n"],
        };
        let mut rest = self.body.clone();
        std::iter::from_fn(move || {
            let end = ends.iter().filter_map(|end| Some(memchr::memmem::find(&rest, end)? + end.len())).min();
            let write = rest.split_to(end.unwrap_or(rest.len()));
            (!write.is_empty()).then_some(write)
        })
    }

    /// The same answer, compressed with a flush after each event.
    pub(crate) async fn gzipped(&self) -> io::Result<Self> {
        use tokio::io::AsyncWriteExt;
        let mut gzip = async_compression::tokio::write::GzipEncoder::new(Vec::new());
        for event in self.by_event() {
            gzip.write_all(&event).await?;
            gzip.flush().await?;
        }
        gzip.shutdown().await?;
        let mut headers = self.headers.clone();
        headers.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        Ok(Recording { body: gzip.into_inner().into(), headers, is_gzip: true })
    }

    /// Whether its bytes are compressed.
    pub(crate) fn is_gzip(&self) -> bool {
        self.is_gzip
    }

    fn is_event_stream(&self) -> bool {
        self.headers.iter().any(|(_, value)| value.as_bytes().starts_with(b"text/event-stream"))
    }
}

/// The content type that was seen, exactly as it was written; one that fits where it was not.
fn content_type(file: &str, manifest: &str) -> HeaderValue {
    let row = manifest.lines().find(|row| row.strip_prefix("| ").is_some_and(|r| r.starts_with(file)));
    // | file | dialect | origin | repository | commit | licence | content-type | note |
    let seen = row.and_then(|row| row.split(" | ").nth(6)).filter(|seen| seen.contains('/'));
    let seen = seen.map(|seen| seen.split("; content-encoding").next().unwrap_or(seen));
    seen.and_then(|seen| HeaderValue::from_str(seen.trim()).ok()).unwrap_or_else(|| {
        HeaderValue::from_static(match file.rsplit('.').next() {
            Some("ndjson") => "application/x-ndjson",
            Some("json") => "application/json",
            Some("txt") => "text/plain; charset=utf-8",
            _ => "text/event-stream",
        })
    })
}

/// The header by which clients of a dialect recognise it.
fn dialect_header(dialect: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = match dialect {
        "vercel-ui-message-stream" => "x-vercel-ai-ui-message-stream",
        "vercel-data-stream-v4" => "x-vercel-ai-data-stream",
        _ => return None,
    };
    Some((HeaderName::from_static(name), HeaderValue::from_static("v1")))
}
