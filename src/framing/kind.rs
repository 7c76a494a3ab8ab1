//! The ways in which answers are framed.

use serde::{Deserialize, Serialize};

/// How a stream is cut into events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// Server-Sent Events (WHATWG HTML 9.2).
    #[default]
    Sse,
    /// One JSON value per line: NDJSON, JSON Lines.
    Lines,
    /// Lines of the form `<code>:<json>`, as AI SDK 4 sends them; the code is the event's name.
    Prefixed,
    /// One JSON array whose elements are the events, as Gemini sends without `alt=sse`.
    JsonArray,
}

impl Framing {
    const ALL: [Framing; 4] = [Framing::Sse, Framing::Lines, Framing::Prefixed, Framing::JsonArray];

    /// The framing that streams of this content type may have.
    pub fn of(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Framing::ALL.into_iter().find(|framing| framing.is_of(&media_type))
    }

    /// Whether answers of this media type (in lower case, without parameters) may be framed so.
    pub fn is_of(self, media_type: &str) -> bool {
        match self {
            Framing::Sse => media_type == "text/event-stream",
            Framing::Lines => matches!(
                media_type,
                "application/x-ndjson"
                    | "application/ndjson"
                    | "application/jsonl"
                    | "application/x-jsonlines"
                    | "application/json-lines"
            ),
            Framing::Prefixed => media_type == "text/plain",
            Framing::JsonArray => media_type == "application/json",
        }
    }
}
