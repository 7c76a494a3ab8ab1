//! What a client may say over WebSocket.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::field::{Field, fields, session};
use super::{Attach, Cancel, Presence, Publish, ReadTo, SendRun, Steer, attach, control, sharing};
use crate::session::SessionId;
use crate::wire::Code;

/// The longest `ref` that is echoed, in bytes of JSON.
const MAX_REFERENCE: usize = 256;

/// The types of this version, for a client that sends another.
const TYPES: &str = "attach, detach, send, cancel, steer, queue, publish, presence, read, ping, pong";

/// A client's `ref`: a JSON string or number, echoed verbatim in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(Box<str>);

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One message of a client, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// Follow a session.
    Attach(Attach),
    /// Stop following it.
    Detach {
        /// Which.
        session: SessionId,
    },
    /// Begin a run.
    Send(Box<SendRun>),
    /// End runs.
    Cancel(Cancel),
    /// Give a running run something new to work on.
    Steer(Steer),
    /// List what waits in a session.
    Queue {
        /// Which.
        session: SessionId,
    },
    /// Publish an event.
    Publish(Publish),
    /// Be here, with a state.
    Presence(Presence),
    /// Say how far the user has read.
    Read(ReadTo),
    /// Asks for a `pong`.
    Ping,
    /// Answers our `ping`.
    Pong,
}

/// A message that was not understood; the socket stays open.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The message's `ref`, where it could be read.
    pub reference: Option<Reference>,
    /// What is wrong.
    pub code: Code,
    /// What to do about it.
    pub message: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "ref", borrow)]
    reference: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawSession {
    session: Option<String>,
}

impl ClientMessage {
    /// Reads one text frame. Unknown fields are ignored.
    pub fn parse(text: &str) -> Result<(Self, Option<Reference>), Rejected> {
        let envelope: Envelope<'_> = fields(text).map_err(|(code, error)| Rejected {
            reference: None,
            code,
            message: format!("a message is one JSON object with a `type`: {error}"),
        })?;
        let reference = envelope.reference.map(read_reference).transpose()?;
        let fail = |code, message: String| Rejected { reference: reference.clone(), code, message };
        let Some(kind) = envelope.kind else {
            return Err(fail(Code::BadMessage, "the message has no `type`".into()));
        };
        let parsed = match kind.as_str() {
            "attach" => attach::read(text).map(ClientMessage::Attach),
            "detach" => read_session(text).map(|session| ClientMessage::Detach { session }),
            "send" => control::read_send(text).map(|send| ClientMessage::Send(Box::new(send))),
            "cancel" => control::read_cancel(text).map(ClientMessage::Cancel),
            "steer" => control::read_steer(text).map(ClientMessage::Steer),
            "queue" => read_session(text).map(|session| ClientMessage::Queue { session }),
            "publish" => sharing::read_publish(text).map(ClientMessage::Publish),
            "presence" => sharing::read_presence(text).map(ClientMessage::Presence),
            "read" => sharing::read_read(text).map(ClientMessage::Read),
            "ping" => Ok(ClientMessage::Ping),
            "pong" => Ok(ClientMessage::Pong),
            _ => {
                return Err(fail(Code::UnknownType, format!("unknown `type`; this version knows {TYPES}")));
            }
        };
        match parsed {
            Ok(message) => Ok((message, reference)),
            Err((code, message)) => Err(fail(code, message)),
        }
    }
}

fn read_reference(raw: &RawValue) -> Result<Reference, Rejected> {
    let text = raw.get();
    let scalar = text.starts_with('"') || text.starts_with('-') || text.starts_with(|c: char| c.is_ascii_digit());
    if scalar && text.len() <= MAX_REFERENCE {
        return Ok(Reference(text.into()));
    }
    let message = format!("`ref` is a string or a number of at most {MAX_REFERENCE} bytes");
    Err(Rejected { reference: None, code: Code::BadMessage, message })
}

fn read_session(text: &str) -> Field<SessionId> {
    let raw: RawSession = fields(text)?;
    session(raw.session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_message_keeps_its_reference() {
        let rejected = ClientMessage::parse(r#"{"type":"dance","ref":"a\"b"}"#).unwrap_err();
        assert_eq!(rejected.code, Code::UnknownType);
        assert_eq!(rejected.reference.unwrap().to_string(), r#""a\"b""#);
        for bad in ["", "[]", "1", "nonsense", r#"{"ref":1}"#, r#"{"type":"ping","ref":{}}"#, r#"{"type":"attach"}"#] {
            assert_eq!(ClientMessage::parse(bad).unwrap_err().code, Code::BadMessage, "{bad}");
        }
    }
}
