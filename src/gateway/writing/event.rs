//! One event as JSON: what an agent that writes directly says of it.

use bytestring::ByteString;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::said;
use crate::session::{Kind, Record, RunId};

/// What holds for every event of a body that does not say otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    /// The agent's name.
    pub(super) source: Option<ByteString>,
    /// The run that the events belong to.
    pub(super) run: Option<RunId>,
}

/// The JSON form. Unknown fields are ignored.
#[derive(Deserialize)]
struct Event<'a> {
    event: Option<String>,
    id: Option<String>,
    data: Option<String>,
    #[serde(borrow, default, deserialize_with = "verbatim")]
    json: Option<&'a RawValue>,
    source: Option<String>,
    run: Option<String>,
}

impl Labels {
    /// A record of this kind with these labels.
    pub(super) fn record(&self, kind: Kind, data: ByteString) -> Record {
        Record { kind, run: self.run.clone(), source: self.source.clone(), event: None, id: None, data }
    }
}

/// Reads one event. The error says what is wrong with it.
pub(super) fn record(text: &[u8], labels: &Labels) -> Result<Record, String> {
    // A derived structure would take an array as well.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err("an event is a JSON object; several are sent one a line, as `application/x-ndjson`".into());
    }
    let event: Event<'_> = serde_json::from_slice(text).map_err(|error| format!("not an event: {error}"))?;
    let data = match (event.data, event.json) {
        (Some(text), None) => text.into(),
        (None, Some(value)) => value.get().into(),
        (Some(_), Some(_)) => return Err("an event has `data` (text) or `json` (any value), not both".into()),
        (None, None) => return Err("an event has `data` (text) or `json` (any value)".into()),
    };
    let mut record = labels.record(Kind::Event, data);
    record.event = field("event", event.event)?.filter(|name| !name.is_empty());
    record.id = field("id", event.id)?;
    if let Some(name) = event.source {
        record.source = Some(said::source(&name)?);
    }
    if let Some(run) = event.run {
        record.run = Some(RunId::parse(&run).map_err(|error| format!("`run`: {error}"))?);
    }
    Ok(record)
}

/// A field as SSE can say it, so that every reader gets it.
fn field(name: &str, value: Option<String>) -> Result<Option<ByteString>, String> {
    match value {
        Some(value) if value.contains(['\n', '\r', '\0']) => Err(format!("`{name}` has no line ends and no NUL")),
        value => Ok(value.map(Into::into)),
    }
}

/// Keeps `null`, which is a value, apart from no field.
fn verbatim<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_what_it_is_and_its_json_stays_as_it_was() {
        let labels = Labels { source: Some("agent".into()), run: None };
        let read = |text: &str| record(text.as_bytes(), &labels).unwrap();
        let full = read(r#" {"event":"delta","id":"7","json":{"b": 1,  "a":2.0},"run":"r","source":"other","x":1}"#);
        assert_eq!(
            (&*full.data, full.event.as_deref(), full.id.as_deref()),
            (r#"{"b": 1,  "a":2.0}"#, Some("delta"), Some("7"))
        );
        assert_eq!((full.source.as_deref(), full.run), (Some("other"), Some(RunId::parse("r").unwrap())));
        let plain = read(r#"{"data":"two\nlines","event":""}"#);
        assert_eq!((&*plain.data, plain.event, plain.source.as_deref()), ("two\nlines", None, Some("agent")));
        assert_eq!(&*read(r#"{"json":null}"#).data, "null");
    }

    #[test]
    fn what_is_no_event_is_refused_in_words() {
        for (text, words) in [
            ("", "object"),
            ("[]", "one a line"),
            (r#"["e","i","d",null,"s"]"#, "one a line"),
            ("{}", "`data`"),
            (r#"{"data":null}"#, "`data`"),
            (r#"{"data":"x","json":1}"#, "not both"),
            (r#"{"data":1}"#, "not an event"),
            (r#"{"data":"x"} {}"#, "not an event"),
            (r#"{"data":"x","event":"a\nb"}"#, "`event`"),
            (r#"{"data":"x","id":"\u0000"}"#, "`id`"),
            (r#"{"data":"x","run":"a b"}"#, "`run`"),
            (r#"{"data":"x","source":""}"#, "source"),
            ("{\"data\":\"\u{7f}\"", "not an event"),
        ] {
            let error = record(text.as_bytes(), &Labels::default()).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
