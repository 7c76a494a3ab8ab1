//! An entry of the log as a message: the same text for every subscriber, on every transport.

use std::fmt::Write;

use serde_json::value::RawValue;

use crate::session::{Entry, Kind, Offset, SessionId};

/// The entry as one JSON object, as it is sent live. Subscriber-specific fields are added by
/// [`with_field`].
pub fn entry_frame(session: &SessionId, entry: &Entry) -> String {
    let record = &entry.record;
    let mut out = String::with_capacity(160 + record.data.len());
    let kind = match record.kind {
        Kind::Event => "event",
        Kind::EventDropped => "event_dropped",
        Kind::Run => "run",
        Kind::Input => "input",
        Kind::Result => "result",
        Kind::Steer => "steer",
        Kind::Status => "status",
    };
    // Writing to a String cannot fail.
    let _ = write!(out, r#"{{"type":"{kind}","session":"{session}","offset":"{}""#, entry.offset);
    if let Some(run) = &record.run {
        let _ = write!(out, r#","run":"{run}""#);
    }
    if let Some(source) = &record.source {
        out.push_str(if matches!(record.kind, Kind::Input | Kind::Steer) { r#","client":"# } else { r#","source":"# });
        quoted(&mut out, source);
    }
    match record.kind {
        Kind::Event | Kind::Input => {
            optional(&mut out, "event", record.event.as_deref());
            optional(&mut out, "id", record.id.as_deref());
            payload(&mut out, &record.data);
        }
        Kind::Run => {
            optional(&mut out, "state", record.event.as_deref());
            members(&mut out, &record.data);
        }
        Kind::Result => {
            if let Some(status) = record.event.as_deref().filter(|status| status.parse::<u16>().is_ok()) {
                let _ = write!(out, r#","status":{status}"#);
            }
            payload(&mut out, &record.data);
        }
        Kind::Steer => {
            optional(&mut out, "outcome", record.event.as_deref());
            members(&mut out, &record.data);
        }
        Kind::EventDropped | Kind::Status => members(&mut out, &record.data),
    }
    out.push('}');
    out
}

/// The frame with one more member, `"name":value`; `value` is JSON.
pub fn with_field(frame: &str, name: &str, value: &str) -> String {
    let open = frame.strip_suffix('}').unwrap_or(frame);
    let mut out = String::with_capacity(open.len() + name.len() + value.len() + 6);
    let _ = write!(out, r#"{open},"{name}":{value}}}"#);
    out
}

/// The frame of a record that stands for the entries `first..=entry.offset` of one block: part `n` of `of`.
pub fn merged_frame(session: &SessionId, entry: &Entry, first: Offset, (n, of): (usize, usize)) -> String {
    let mut out = entry_frame(session, entry);
    out.pop();
    if first != entry.offset {
        let _ = write!(out, r#","first":"{first}""#);
    }
    if of > 1 {
        let _ = write!(out, r#","part":[{n},{of}]"#);
    }
    out.push('}');
    out
}

/// Writes `text` as a JSON string.
pub(super) fn quoted(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..i]);
        plain = i + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                let _ = write!(out, "\\u{other:04x}");
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

fn optional(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let _ = write!(out, r#","{name}":"#);
        quoted(out, value);
    }
}

/// The data verbatim where it is one JSON value, else as text.
pub(super) fn payload(out: &mut String, data: &str) {
    if serde_json::from_str::<&RawValue>(data).is_ok() && is_shallow(data) {
        out.push_str(r#","json":"#);
        out.push_str(data);
    } else {
        out.push_str(r#","text":"#);
        quoted(out, data);
    }
}

/// Whether parsers that know a limit of depth read the data. Many stop at 128 levels, and a client that
/// breaks on one event would break on every replay of it: deeper data travels as text.
fn is_shallow(data: &str) -> bool {
    const DEPTH: usize = 100;
    if memchr::memchr2_iter(b'[', b'{', data.as_bytes()).take(DEPTH + 1).count() <= DEPTH {
        return true;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in data.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH {
            return false;
        }
    }
    true
}

/// The members of an object that we wrote ourselves, in line with the frame's own.
pub(super) fn members(out: &mut String, object: &str) {
    let inner = object.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    if let Some(inner) = inner.filter(|inner| !inner.trim().is_empty()) {
        out.push(',');
        out.push_str(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Record, RunId, RunState, Terminal};
    use proptest::prelude::*;

    fn event(data: &str) -> Entry {
        let record = Record {
            kind: Kind::Event,
            run: Some(RunId::parse("r").unwrap()),
            source: None,
            event: Some("delta".into()),
            id: None,
            data: data.into(),
        };
        Entry { offset: Offset::new(5, 2), record }
    }

    fn frame(entry: &Entry) -> String {
        entry_frame(&SessionId::parse("s").unwrap(), entry)
    }

    #[test]
    fn json_data_travels_verbatim_and_other_data_as_text() {
        let expected = r#"{"type":"event","session":"s","offset":"5-2","run":"r","event":"delta","json":{"a": 1 }  }"#;
        assert_eq!(frame(&event(r#"{"a": 1 }  "#)), expected);
        let expected = r#"{"type":"event","session":"s","offset":"5-2","run":"r","event":"delta","text":"[DONE]"}"#;
        assert_eq!(frame(&event("[DONE]")), expected);
    }

    #[test]
    fn data_that_is_nested_too_deep_for_parsers_travels_as_text() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(frame(&event(&nested(100))).contains(r#""json":[["#));
        assert!(frame(&event(&nested(5_000))).contains(r#""text":"[["#));
        // Many values side by side, and brackets in strings, are not deep.
        let wide = format!("[{}\"{}\"]", "[],".repeat(200), "[".repeat(200));
        assert!(frame(&event(&wide)).contains(r#""json":[[],"#));
    }

    #[test]
    fn a_run_state_carries_its_details_in_line() {
        let state = RunState::Ended(Terminal::Completed);
        let record = Record::run_state(RunId::parse("r").unwrap(), state, r#"{"reason":"end"}"#);
        let text = frame(&Entry { offset: Offset::new(5, 3), record });
        assert_eq!(text, r#"{"type":"run","session":"s","offset":"5-3","run":"r","state":"completed","reason":"end"}"#);
    }

    #[test]
    fn a_merged_record_says_what_it_stands_for() {
        let (session, entry) = (SessionId::parse("s").unwrap(), event("1"));
        let text = merged_frame(&session, &entry, Offset::new(4, 1), (1, 2));
        let head = r#"{"type":"event","session":"s","offset":"5-2","run":"r","event":"delta","json":1"#;
        assert_eq!(text, format!(r#"{head},"first":"4-1","part":[1,2]}}"#));
        assert_eq!(merged_frame(&session, &entry, entry.offset, (1, 1)), format!("{head}}}"));
    }

    #[test]
    fn a_field_is_added_before_the_end() {
        assert_eq!(with_field(r#"{"a":1}"#, "replay", "true"), r#"{"a":1,"replay":true}"#);
    }

    proptest! {
        #[test]
        fn every_frame_is_json_and_gives_the_data_back(data in ".*") {
            let text = frame(&event(&data));
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            match value.get("text") {
                Some(text) => prop_assert_eq!(text.as_str().unwrap(), &data),
                None => {
                    let original: serde_json::Value = serde_json::from_str(&data).unwrap();
                    prop_assert_eq!(&value["json"], &original);
                }
            }
        }
    }
}
