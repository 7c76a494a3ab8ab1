//! A message of the server, and what a client makes of a list of them.

use std::fmt;
use std::ops::Index;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::recordings::Event;

/// The address of an entry, as a client understands it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Offset {
    pub(crate) ms: u64,
    pub(crate) seq: u64,
}

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let halves = text.split_once('-').and_then(|(ms, seq)| Some((ms.parse().ok()?, seq.parse().ok()?)));
        halves.map(|(ms, seq)| Offset { ms, seq }).ok_or_else(|| format!("`{text}` is not an offset"))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// One JSON message of the server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    text: String,
    value: Value,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    json: Option<&'a RawValue>,
    text: Option<String>,
}

impl Message {
    /// Reads one message.
    pub(crate) fn parse(text: &str) -> Self {
        let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Message { text: text.to_owned(), value }
    }

    /// Its `type`.
    pub(crate) fn kind(&self) -> &str {
        self.value["type"].as_str().unwrap_or_else(|| panic!("no type: {self}"))
    }

    /// The session that it speaks of, if any.
    pub(crate) fn session(&self) -> Option<&str> {
        self.value["session"].as_str()
    }

    /// Its offset.
    pub(crate) fn offset(&self) -> Offset {
        self.value["offset"].as_str().unwrap_or_else(|| panic!("no offset: {self}")).parse().unwrap()
    }

    /// The offset of the first entry that it stands for.
    pub(crate) fn first(&self) -> Offset {
        self.value.get("first").map_or_else(|| self.offset(), |first| first.as_str().unwrap().parse().unwrap())
    }

    /// Which of its block's records it is, and how many there are.
    pub(crate) fn part(&self) -> (u64, u64) {
        let part = |n: usize| self.value["part"][n].as_u64().unwrap();
        self.value.get("part").map_or((1, 1), |_| (part(0), part(1)))
    }

    /// The offset that comes before it under the reader's filter.
    pub(crate) fn prev(&self) -> Option<Offset> {
        self.value.get("prev").map(|prev| prev.as_str().unwrap().parse().unwrap())
    }

    /// Whether it is an entry of the log.
    pub(crate) fn is_entry(&self) -> bool {
        matches!(self.kind(), "event" | "event_dropped" | "run" | "input" | "result" | "steer" | "status")
            && self.session().is_some()
            && !self.is_ephemeral()
    }

    /// Whether it was said only to those who are here.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.value["ephemeral"] == true
    }

    /// Whether it is the terminal of a run.
    pub(crate) fn is_terminal(&self) -> bool {
        self.kind() == "run"
            && matches!(self["state"].as_str(), Some("completed" | "failed" | "cancelled" | "interrupted"))
    }

    /// The data of an event, verbatim.
    pub(crate) fn data(&self) -> String {
        let payload: Payload<'_> = serde_json::from_str(&self.text).unwrap();
        match (payload.json, payload.text) {
            (Some(json), None) => json.get().to_owned(),
            (None, Some(text)) => text,
            _ => panic!("neither json nor text: {self}"),
        }
    }

    /// The same as a reader gets it in its replay.
    pub(crate) fn as_replay(&self) -> Self {
        let text = format!("{},\"replay\":true}}", self.text.strip_suffix('}').unwrap());
        Message::parse(&text)
    }

    /// The same without what is this reader's own: `replay` and `prev`.
    pub(crate) fn entry(&self) -> Value {
        let mut value = self.value.clone();
        let fields = value.as_object_mut().unwrap();
        fields.remove("replay");
        fields.remove("prev");
        value
    }
}

impl Index<&str> for Message {
    type Output = Value;

    fn index(&self, field: &str) -> &Value {
        &self.value[field]
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The SSE events that a reader of these entries dispatches for `run`: each `id` is the stream's
/// last event id from then on. `id` is the last event id that the reader begins with.
pub(crate) fn events_of<'a>(entries: impl IntoIterator<Item = &'a Message>, run: &str, id: &str) -> Vec<Event> {
    let mut id = id.to_owned();
    let mut events = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.kind() == "event" && entry["run"] == run) {
        if let Some(new) = entry["id"].as_str() {
            new.clone_into(&mut id);
        }
        let name = entry["event"].as_str().unwrap_or("message").to_owned();
        events.push(Event { name, data: entry.data(), id: id.clone() });
    }
    events
}

/// The one terminal of `run`; fails where there is none or more than one.
pub(crate) fn terminal_of<'a>(entries: impl IntoIterator<Item = &'a Message>, run: &str) -> &'a Message {
    let mut terminals = entries.into_iter().filter(|entry| entry.is_terminal() && entry["run"] == run);
    let terminal = terminals.next().unwrap_or_else(|| panic!("{run} has no terminal"));
    assert_eq!(terminals.next(), None, "{run} has a second terminal");
    terminal
}
