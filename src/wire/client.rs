//! What a client may say over WebSocket.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::session::{After, RunId, SessionId};
use crate::wire::Code;

/// The longest `ref` that is echoed, in bytes of JSON.
const MAX_REFERENCE: usize = 256;

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
    /// Asks for a `pong`.
    Ping,
    /// Answers our `ping`.
    Pong,
}

/// The fields of `attach`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attach {
    /// Which session.
    pub session: SessionId,
    /// Where reading starts.
    pub after: After,
    /// Only entries of these runs.
    pub runs: Option<Vec<RunId>>,
    /// Only entries of these sources.
    pub sources: Option<Vec<String>>,
    /// Attach to a session that does not exist yet and follow it from its first entry.
    pub create: bool,
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
struct RawAttach<'a> {
    session: Option<String>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    replay: Option<String>,
    runs: Option<Vec<String>>,
    sources: Option<Vec<String>>,
    create: Option<bool>,
}

#[derive(Deserialize)]
struct RawDetach {
    session: Option<String>,
}

impl ClientMessage {
    /// Reads one text frame. Unknown fields are ignored.
    pub fn parse(text: &str) -> Result<(Self, Option<Reference>), Rejected> {
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| Rejected {
            reference: None,
            code: Code::BadMessage,
            message: format!("a message is one JSON object with a `type`: {error}"),
        })?;
        let reference = envelope.reference.map(read_reference).transpose()?;
        let fail = |code, message: String| Rejected { reference: reference.clone(), code, message };
        let Some(kind) = envelope.kind else {
            return Err(fail(Code::BadMessage, "the message has no `type`".into()));
        };
        let parsed = match kind.as_str() {
            "attach" => read_attach(text).map(ClientMessage::Attach),
            "detach" => read_detach(text),
            "ping" => Ok(ClientMessage::Ping),
            "pong" => Ok(ClientMessage::Pong),
            _ => {
                let message = "unknown `type`; this version knows attach, detach, ping, pong".into();
                return Err(fail(Code::UnknownType, message));
            }
        };
        match parsed {
            Ok(message) => Ok((message, reference)),
            Err((code, message)) => Err(fail(code, message)),
        }
    }
}

type Field<T> = Result<T, (Code, String)>;

fn read_reference(raw: &RawValue) -> Result<Reference, Rejected> {
    let text = raw.get();
    let scalar = text.starts_with('"') || text.starts_with('-') || text.starts_with(|c: char| c.is_ascii_digit());
    if scalar && text.len() <= MAX_REFERENCE {
        return Ok(Reference(text.into()));
    }
    let message = format!("`ref` is a string or a number of at most {MAX_REFERENCE} bytes");
    Err(Rejected { reference: None, code: Code::BadMessage, message })
}

fn read_attach(text: &str) -> Field<Attach> {
    let raw: RawAttach<'_> = fields(text)?;
    if let Some(replay) = &raw.replay
        && replay != "full"
        && replay != "compact"
    {
        return Err((Code::BadMessage, "`replay` is \"full\" or \"compact\"".into()));
    }
    let run_ids = |ids: Vec<String>| -> Field<Vec<RunId>> {
        ids.iter().map(|id| RunId::parse(id).map_err(|e| (Code::BadMessage, format!("`runs`: {e}")))).collect()
    };
    Ok(Attach {
        session: session(raw.session)?,
        after: raw.after.map_or(Ok(After::Start), after_from_json)?,
        runs: raw.runs.map(run_ids).transpose()?,
        sources: raw.sources,
        create: raw.create.unwrap_or(false),
    })
}

fn read_detach(text: &str) -> Field<ClientMessage> {
    let raw: RawDetach = fields(text)?;
    Ok(ClientMessage::Detach { session: session(raw.session)? })
}

fn fields<'a, T: Deserialize<'a>>(text: &'a str) -> Field<T> {
    serde_json::from_str(text).map_err(|error| (Code::BadMessage, error.to_string()))
}

/// A session named by a client. A `~` id is one that we derived: clients may use it to read, so it
/// is accepted here; it can never be *made* by naming it in a request.
fn session(id: Option<String>) -> Field<SessionId> {
    let id = id.ok_or((Code::BadMessage, "`session` is missing".to_owned()))?;
    SessionId::from_store(&id).map_err(|e| (Code::BadMessage, format!("`session`: {e}")))
}

/// The value of `after` in a URL: `start`, `end` or an offset. The error says so.
pub fn after_from_query(text: &str) -> Result<After, String> {
    match text {
        "start" => Ok(After::Start),
        "end" => Ok(After::End),
        offset => offset.parse().map(After::Offset).map_err(|e| format!("`after` is start, end, or an offset: {e}")),
    }
}

fn after_from_json(raw: &RawValue) -> Field<After> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Word(String),
        Last { last: u64 },
        Since { since_ms: u64 },
    }
    let wrong = || {
        let forms = "`after` is an offset, \"start\", \"end\", {\"last\": n} or {\"since_ms\": t}";
        (Code::BadOffset, forms.to_owned())
    };
    match serde_json::from_str(raw.get()).map_err(|_| wrong())? {
        Form::Word(word) => after_from_query(&word).map_err(|message| (Code::BadOffset, message)),
        Form::Last { last } => Ok(After::Last(last)),
        Form::Since { since_ms } => Ok(After::Since(since_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Offset;

    fn attach(after: &str) -> Result<After, Code> {
        let text = format!(r#"{{"type":"attach","session":"s","after":{after}}}"#);
        match ClientMessage::parse(&text) {
            Ok((ClientMessage::Attach(attach), _)) => Ok(attach.after),
            Ok(other) => panic!("{other:?}"),
            Err(rejected) => Err(rejected.code),
        }
    }

    #[test]
    fn after_has_five_forms() {
        assert_eq!(attach(r#""start""#), Ok(After::Start));
        assert_eq!(attach(r#""end""#), Ok(After::End));
        assert_eq!(attach(r#""17-4""#), Ok(After::Offset(Offset::new(17, 4))));
        assert_eq!(attach(r#"{"last":5}"#), Ok(After::Last(5)));
        assert_eq!(attach(r#"{"since_ms":9}"#), Ok(After::Since(9)));
        for bad in [r#""17""#, r#"17"#, r#"{"last":-1}"#, r#"[]"#, r#""now""#] {
            assert_eq!(attach(bad), Err(Code::BadOffset), "{bad}");
        }
    }

    #[test]
    fn a_message_without_after_starts_at_the_start() {
        let (message, reference) = ClientMessage::parse(r#"{"type":"attach","session":"s","ref":7,"new":1}"#).unwrap();
        let expected = Attach {
            session: SessionId::parse("s").unwrap(),
            after: After::Start,
            runs: None,
            sources: None,
            create: false,
        };
        assert_eq!(message, ClientMessage::Attach(expected));
        assert_eq!(reference.unwrap().to_string(), "7");
    }

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
