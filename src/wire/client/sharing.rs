//! What clients share in a session beside runs: `publish`, `presence`, `read`.

use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::field::{Field, fields, session, wrong};
use crate::session::{Offset, SessionId};
use crate::wire::Code;

/// The longest name of an event, in bytes.
const MAX_EVENT: usize = 256;

/// The largest state of a client, in bytes of JSON.
const MAX_STATE: usize = 1024;

/// The largest data that is published to those who are here, in bytes of JSON.
const MAX_EPHEMERAL: usize = 64 << 10;

/// The fields of `publish`.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Where.
    pub session: SessionId,
    /// The event's name.
    pub event: Option<ByteString>,
    /// The event's data: the JSON value as the client wrote it.
    pub data: ByteString,
    /// Only for those who are here: not kept.
    pub ephemeral: bool,
}

/// The fields of `presence`.
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    /// Where.
    pub session: SessionId,
    /// What the client says of itself: the JSON value as it wrote it; `None`: it is not here any more.
    pub state: Option<ByteString>,
}

/// The fields of `read`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadTo {
    /// Where.
    pub session: SessionId,
    /// The newest entry that the user has read.
    pub offset: Offset,
}

#[derive(Deserialize)]
struct RawPublish<'a> {
    session: Option<String>,
    event: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    ephemeral: Option<bool>,
}

#[derive(Deserialize)]
struct RawPresence<'a> {
    session: Option<String>,
    /// `Some` with JSON's `null` is a client that leaves.
    #[serde(borrow, default, deserialize_with = "present")]
    state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawRead {
    session: Option<String>,
    offset: Option<String>,
}

pub(super) fn read_publish(text: &str) -> Field<Publish> {
    let raw: RawPublish<'_> = fields(text)?;
    let event = match raw.event {
        // A line break would end the field where the session is read as SSE.
        Some(event) if event.is_empty() || event.len() > MAX_EVENT || event.contains(['\r', '\n']) => {
            return Err(wrong(format!("`event` has 1 to {MAX_EVENT} bytes in one line")));
        }
        event => event.map(ByteString::from),
    };
    let data = raw.data.ok_or_else(|| wrong("`data` is missing: any JSON value"))?.get();
    let ephemeral = raw.ephemeral.unwrap_or(false);
    if ephemeral && data.len() > MAX_EPHEMERAL {
        return Err((Code::TooLarge, format!("the `data` of an ephemeral event may have {MAX_EPHEMERAL} bytes")));
    }
    Ok(Publish { session: session(raw.session)?, event, data: data.into(), ephemeral })
}

pub(super) fn read_presence(text: &str) -> Field<Presence> {
    let raw: RawPresence<'_> = fields(text)?;
    let state = raw.state.ok_or_else(|| wrong("`state` is missing: any JSON value, or null to leave"))?.get();
    if state.len() > MAX_STATE {
        return Err((Code::TooLarge, format!("`state` has {} bytes of JSON; it may have {MAX_STATE}", state.len())));
    }
    Ok(Presence { session: session(raw.session)?, state: (state != "null").then(|| state.into()) })
}

pub(super) fn read_read(text: &str) -> Field<ReadTo> {
    let raw: RawRead = fields(text)?;
    let offset = raw.offset.ok_or_else(|| wrong("`offset` is missing: of the newest entry that was read"))?;
    let offset = offset.parse().map_err(|error| (Code::BadOffset, format!("`offset`: {error}")))?;
    Ok(ReadTo { session: session(raw.session)?, offset })
}

/// A field that is there, also where it is `null`.
fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ClientMessage;

    fn rejected(text: &str) -> Code {
        ClientMessage::parse(text).unwrap_err().code
    }

    #[test]
    fn data_and_state_travel_as_the_client_wrote_them() {
        let (message, _) =
            ClientMessage::parse(r#"{"type":"publish","session":"s","event":"e","data":{"n": 1.0 }}"#).unwrap();
        let session = SessionId::parse("s").unwrap();
        let data = r#"{"n": 1.0 }"#.into();
        let expected = Publish { session: session.clone(), event: Some("e".into()), data, ephemeral: false };
        assert_eq!(message, ClientMessage::Publish(expected));
        let (message, _) = ClientMessage::parse(r#"{"type":"presence","session":"s","state":[ 1 ]}"#).unwrap();
        assert_eq!(message, ClientMessage::Presence(Presence { session, state: Some("[ 1 ]".into()) }));
    }

    #[test]
    fn a_null_state_leaves_and_a_missing_one_is_a_mistake() {
        let (message, _) = ClientMessage::parse(r#"{"type":"presence","session":"s","state":null}"#).unwrap();
        let session = SessionId::parse("s").unwrap();
        assert_eq!(message, ClientMessage::Presence(Presence { session, state: None }));
        assert_eq!(rejected(r#"{"type":"presence","session":"s"}"#), Code::BadMessage);
    }

    #[test]
    fn what_is_too_large_or_makes_no_sense_is_refused() {
        let state = |bytes: usize| {
            let text = "x".repeat(bytes - 2);
            ClientMessage::parse(&format!(r#"{{"type":"presence","session":"s","state":"{text}"}}"#))
        };
        assert!(state(1024).is_ok());
        assert_eq!(state(1025).unwrap_err().code, Code::TooLarge);
        let data = "x".repeat(MAX_EPHEMERAL);
        let text = format!(r#"{{"type":"publish","session":"s","data":"{data}","ephemeral":true}}"#);
        assert_eq!(rejected(&text), Code::TooLarge);
        for bad in [
            r#"{"type":"publish","session":"s","event":"e"}"#,
            r#"{"type":"publish","session":"s","event":"","data":1}"#,
            r#"{"type":"publish","session":"s","event":"a\nb","data":1}"#,
            r#"{"type":"publish","data":1}"#,
            r#"{"type":"read","session":"s"}"#,
        ] {
            assert_eq!(rejected(bad), Code::BadMessage, "{bad}");
        }
        assert_eq!(rejected(r#"{"type":"read","session":"s","offset":"start"}"#), Code::BadOffset);
    }
}
