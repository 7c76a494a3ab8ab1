//! Live control: `send`, `cancel`, `steer`. The same fields are the JSON bodies of the calls over
//! HTTP, whose URL names the session and the run.

use std::collections::BTreeMap;

use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::field::{Field, fields, session, wrong};
use crate::session::{BusyPolicy, RunId, SessionId};

/// The longest key of a `send`, in bytes.
const MAX_KEY: usize = 256;

/// The longest name of an agent, in bytes.
const MAX_SOURCE: usize = 128;

/// The fields of `send`: a request that the sidecar makes to the upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct SendRun {
    /// Where the run is recorded; `None`: in a new session.
    pub session: Option<SessionId>,
    /// The request's body: the JSON value as the client wrote it.
    pub body: ByteString,
    /// The request's method.
    pub method: Option<String>,
    /// The request's path, with its query.
    pub path: Option<String>,
    /// Headers of the request.
    pub headers: Vec<(String, String)>,
    /// Makes a repeat safe: the same key never begins a second run.
    pub key: Option<ByteString>,
    /// What to do where the route is busy; `None`: what the route says.
    pub on_busy: Option<BusyPolicy>,
    /// The name of the agent that answers.
    pub source: Option<ByteString>,
    /// The run that has begun this one.
    pub parent: Option<RunId>,
}

/// The fields of `cancel`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cancel {
    /// Where.
    pub session: SessionId,
    /// Which runs.
    pub target: Target,
}

/// Which runs a `cancel` means.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// By name.
    Run(RunName),
    /// The run of the `send` with this key, born or not.
    Key(ByteString),
}

/// A run as clients name it.
#[derive(Clone, Debug, PartialEq)]
pub enum RunName {
    /// This one.
    Id(RunId),
    /// Whatever is active.
    Active,
}

/// The fields of `steer`.
#[derive(Clone, Debug, PartialEq)]
pub struct Steer {
    /// Where.
    pub session: SessionId,
    /// Which run.
    pub run: RunName,
    /// What the run is given: the JSON value as the client wrote it.
    pub body: ByteString,
    /// Makes a repeat safe, where steering begins a run.
    pub key: Option<ByteString>,
}

#[derive(Deserialize)]
struct RawSend<'a> {
    session: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    method: Option<String>,
    path: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    key: Option<String>,
    on_busy: Option<String>,
    source: Option<String>,
    parent: Option<String>,
}

#[derive(Deserialize)]
struct RawCancel {
    session: Option<String>,
    run: Option<String>,
    key: Option<String>,
}

#[derive(Deserialize)]
struct RawSteer<'a> {
    session: Option<String>,
    run: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    key: Option<String>,
}

impl SendRun {
    /// Reads the JSON body of `POST /sessions/{session}/runs`. The error says what is wrong.
    pub fn parse(text: &str, session: SessionId) -> Result<Self, String> {
        let sent = read_send(text).map_err(|(_, message)| message)?;
        Ok(SendRun { session: Some(session), ..sent })
    }
}

impl Steer {
    /// Reads the JSON body of `POST /sessions/{session}/runs/{run}/steer`. The error says what is
    /// wrong.
    pub fn parse(text: &str, session: SessionId, run: RunName) -> Result<Self, String> {
        let raw: RawSteer<'_> = fields(text).map_err(|(_, message)| message)?;
        let body = body(raw.body).map_err(|(_, message)| message)?;
        Ok(Steer { session, run, body, key: key(raw.key).map_err(|(_, message)| message)? })
    }
}

impl RunName {
    /// A run's id, or `active`. The error says so.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "active" => Ok(RunName::Active),
            id => {
                RunId::parse(id).map(RunName::Id).map_err(|error| format!("`run` is \"active\" or a run's id: {error}"))
            }
        }
    }
}

pub(super) fn read_send(text: &str) -> Field<SendRun> {
    let raw: RawSend<'_> = fields(text)?;
    let on_busy = |name: String| {
        let policies = "`on_busy` is \"parallel\", \"queue\", \"interrupt\" or \"reject\"";
        BusyPolicy::parse(&name).ok_or_else(|| wrong(policies))
    };
    let source = |name: String| match name.is_empty() || name.len() > MAX_SOURCE {
        true => Err(wrong(format!("`source` has 1 to {MAX_SOURCE} bytes"))),
        false => Ok(name.into()),
    };
    Ok(SendRun {
        session: raw.session.map(|id| session(Some(id))).transpose()?,
        body: body(raw.body)?,
        method: raw.method,
        path: raw.path,
        headers: raw.headers.unwrap_or_default().into_iter().collect(),
        key: key(raw.key)?,
        on_busy: raw.on_busy.map(on_busy).transpose()?,
        source: raw.source.map(source).transpose()?,
        parent: raw.parent.map(|id| RunId::parse(&id).map_err(|e| wrong(format!("`parent`: {e}")))).transpose()?,
    })
}

pub(super) fn read_cancel(text: &str) -> Field<Cancel> {
    let raw: RawCancel = fields(text)?;
    let target = match (raw.run, key(raw.key)?) {
        (Some(run), None) => Target::Run(RunName::parse(&run).map_err(wrong)?),
        (None, Some(key)) => Target::Key(key),
        _ => return Err(wrong("a `cancel` names either a `run` (its id, or \"active\") or the `key` of a `send`")),
    };
    Ok(Cancel { session: session(raw.session)?, target })
}

pub(super) fn read_steer(text: &str) -> Field<Steer> {
    let raw: RawSteer<'_> = fields(text)?;
    let run = raw.run.ok_or_else(|| wrong("a `steer` names a `run`: its id, or \"active\""))?;
    Ok(Steer {
        session: session(raw.session)?,
        run: RunName::parse(&run).map_err(wrong)?,
        body: body(raw.body)?,
        key: key(raw.key)?,
    })
}

fn body(raw: Option<&RawValue>) -> Field<ByteString> {
    raw.map(|raw| raw.get().into()).ok_or_else(|| wrong("`body` is missing: any JSON value"))
}

fn key(raw: Option<String>) -> Field<Option<ByteString>> {
    match raw {
        Some(key) if key.is_empty() || key.len() > MAX_KEY => Err(wrong(format!("`key` has 1 to {MAX_KEY} bytes"))),
        key => Ok(key.map(ByteString::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ClientMessage, Code};

    fn parsed(text: &str) -> ClientMessage {
        ClientMessage::parse(text).unwrap().0
    }

    #[test]
    fn a_body_travels_as_the_client_wrote_it() {
        let ClientMessage::Send(send) = parsed(r#"{"type":"send","body":{"n": 1.0 ,"s":"\u00e9"},"path":"/chat"}"#)
        else {
            panic!("not a send");
        };
        assert_eq!(send.body, r#"{"n": 1.0 ,"s":"\u00e9"}"#);
        assert_eq!((send.session.as_ref(), send.on_busy), (None, None));
    }

    #[test]
    fn a_cancel_names_a_run_or_a_key_and_not_both() {
        let target = |fields: &str| {
            let text = format!(r#"{{"type":"cancel","session":"s",{fields}}}"#);
            match ClientMessage::parse(&text) {
                Ok((ClientMessage::Cancel(cancel), _)) => Ok(cancel.target),
                Ok(other) => panic!("{other:?}"),
                Err(rejected) => Err(rejected.code),
            }
        };
        assert_eq!(target(r#""run":"active""#), Ok(Target::Run(RunName::Active)));
        assert_eq!(target(r#""run":"r1""#), Ok(Target::Run(RunName::Id(RunId::parse("r1").unwrap()))));
        assert_eq!(target(r#""key":"k 1""#), Ok(Target::Key("k 1".into())));
        for bad in [r#""run":"r1","key":"k""#, r#""x":1"#, r#""key":"""#, r#""run":"a b""#] {
            assert_eq!(target(bad), Err(Code::BadMessage), "{bad}");
        }
    }

    #[test]
    fn a_control_message_that_makes_no_sense_is_told_what_is_missing() {
        for (bad, missing) in [
            (r#"{"type":"send","path":"/chat"}"#, "body"),
            (r#"{"type":"send","body":1,"on_busy":"wait"}"#, "on_busy"),
            (r#"{"type":"send","body":1,"parent":"a b"}"#, "parent"),
            (r#"{"type":"steer","session":"s","body":1}"#, "run"),
            (r#"{"type":"steer","session":"s","run":"active"}"#, "body"),
            (r#"{"type":"queue"}"#, "session"),
        ] {
            let rejected = ClientMessage::parse(bad).unwrap_err();
            assert!(rejected.code == Code::BadMessage && rejected.message.contains(missing), "{bad}: {rejected:?}");
        }
    }
}
