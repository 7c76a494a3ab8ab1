//! What the server says over WebSocket, apart from the log's own entries (`frame`).

use std::fmt::Write;

use serde_json::value::RawValue;

use crate::session::{ActiveRun, Gap, Offset, SessionId};
use crate::wire::frame::{members, quoted};
use crate::wire::sharing::{Here, put_present};
use crate::wire::{Code, Outcome, Reference};

/// A message of the server that is not an entry of the log.
#[derive(Clone, Debug)]
pub enum ServerMessage<'a> {
    /// The first message of a connection.
    Welcome {
        /// The connection's id, for support.
        connection: &'a str,
        /// Milliseconds between our pings.
        heartbeat_ms: u64,
        /// The largest message that is accepted.
        max_message_bytes: usize,
    },
    /// The answer to `attach`.
    Attached {
        /// The `ref` of the `attach`.
        reference: Option<&'a Reference>,
        /// Which session.
        session: &'a SessionId,
        /// Where reading starts (exclusive).
        offset: Offset,
        /// The newest entry when reading started.
        tail: Offset,
        /// The active runs.
        runs: &'a [ActiveRun],
        /// Who is here.
        present: &'a [Here<'a>],
        /// How far this user has read.
        read: Option<Offset>,
        /// Whether entries between `offset` and `tail` follow first.
        replaying: bool,
    },
    /// Replay is over; what follows is live.
    Live {
        /// Which session.
        session: &'a SessionId,
        /// The last entry of the replay.
        offset: Offset,
    },
    /// A range that this reader will never get.
    Gap {
        /// Which session.
        session: &'a SessionId,
        /// Which range, and why.
        gap: Gap,
        /// Whether the reader filters, so that `lost` is an upper bound.
        filtered: bool,
    },
    /// Where a filtered reader is, so that it resumes from there.
    At {
        /// Which session.
        session: &'a SessionId,
        /// The newest entry that was looked at.
        offset: Offset,
        /// The reader's position before.
        prev: Offset,
    },
    /// The session was erased.
    Erased {
        /// Which session.
        session: &'a SessionId,
    },
    /// Trouble of the store, or its end.
    Status {
        /// What.
        code: Code,
    },
    /// The store answers again after a `Status`.
    StatusOk,
    /// Asks for a `pong`.
    Ping,
    /// The answer to `ping`.
    Pong {
        /// The `ref` of the `ping`.
        reference: Option<&'a Reference>,
    },
    /// Done.
    Ack {
        /// The `ref` of what is acknowledged.
        reference: Option<&'a Reference>,
        /// What it came to, where there is more to say.
        outcome: Option<&'a Outcome>,
    },
    /// Not done.
    Error {
        /// The `ref` of what failed.
        reference: Option<&'a Reference>,
        /// The session it was about, where one was named.
        session: Option<&'a SessionId>,
        /// What failed.
        code: Code,
        /// What to do about it.
        message: &'a str,
    },
    /// The server is leaving.
    GoAway {
        /// Why.
        reason: &'a str,
        /// When to come back; different for every client, so that they do not come at once.
        reconnect_after_ms: u64,
    },
}

/// Bounds of a client's reconnect delay, milliseconds.
const RECONNECT_MS: (u64, u64) = (250, 15_000);

impl ServerMessage<'_> {
    /// The message as one JSON object.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(192);
        match self {
            ServerMessage::Welcome { connection, heartbeat_ms, max_message_bytes } => {
                out.push_str(r#"{"type":"welcome","connection":"#);
                quoted(&mut out, connection);
                let (min, max) = RECONNECT_MS;
                put(
                    &mut out,
                    format_args!(r#","heartbeat_ms":{heartbeat_ms},"max_message_bytes":{max_message_bytes}"#),
                );
                put(&mut out, format_args!(r#","reconnect":{{"min_ms":{min},"max_ms":{max}}}"#));
            }
            ServerMessage::Attached { reference, session, offset, tail, runs, present, read, replaying } => {
                out.push_str(r#"{"type":"attached""#);
                put_reference(&mut out, *reference);
                put(&mut out, format_args!(r#","session":"{session}","offset":"{offset}","tail":"{tail}","runs":["#));
                for (i, run) in runs.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    put_run(&mut out, run);
                }
                out.push_str(r#"],"present":"#);
                put_present(&mut out, present.iter().copied());
                if let Some(read) = read {
                    put(&mut out, format_args!(r#","read":"{read}""#));
                }
                put(&mut out, format_args!(r#","replaying":{replaying}"#));
            }
            ServerMessage::Live { session, offset } => {
                put(&mut out, format_args!(r#"{{"type":"live","session":"{session}","offset":"{offset}""#));
            }
            ServerMessage::Gap { session, gap, filtered } => {
                let Gap { from, to, lost, reason } = gap;
                let lost_key = if *filtered { "lost_at_most" } else { "lost" };
                put(&mut out, format_args!(r#"{{"type":"gap","session":"{session}","from":"{from}","to":"{to}""#));
                put(&mut out, format_args!(r#","{lost_key}":{lost},"reason":"{}""#, reason.as_str()));
            }
            ServerMessage::At { session, offset, prev } => {
                put(
                    &mut out,
                    format_args!(r#"{{"type":"at","session":"{session}","offset":"{offset}","prev":"{prev}""#),
                );
            }
            ServerMessage::Erased { session } => {
                put(&mut out, format_args!(r#"{{"type":"erased","session":"{session}""#))
            }
            ServerMessage::Status { code } => {
                let (name, retryable) = (code.as_str(), code.retryable());
                put(&mut out, format_args!(r#"{{"type":"status","code":"{name}","retryable":{retryable}"#));
            }
            ServerMessage::StatusOk => out.push_str(r#"{"type":"status","code":"ok","retryable":false"#),
            ServerMessage::Ping => out.push_str(r#"{"type":"ping""#),
            ServerMessage::Pong { reference } => {
                out.push_str(r#"{"type":"pong""#);
                put_reference(&mut out, *reference);
            }
            ServerMessage::Ack { reference, outcome } => {
                out.push_str(r#"{"type":"ack""#);
                put_reference(&mut out, *reference);
                if let Some(outcome) = outcome {
                    members(&mut out, &outcome.to_json().to_string());
                }
            }
            ServerMessage::Error { reference, session, code, message } => {
                out.push_str(r#"{"type":"error""#);
                put_reference(&mut out, *reference);
                if let Some(session) = session {
                    put(&mut out, format_args!(r#","session":"{session}""#));
                }
                let (name, retryable) = (code.as_str(), code.retryable());
                put(&mut out, format_args!(r#","code":"{name}","retryable":{retryable},"message":"#));
                quoted(&mut out, message);
            }
            ServerMessage::GoAway { reason, reconnect_after_ms } => {
                out.push_str(r#"{"type":"goaway","reason":"#);
                quoted(&mut out, reason);
                put(&mut out, format_args!(r#","reconnect_after_ms":{reconnect_after_ms}"#));
            }
        }
        out.push('}');
        debug_assert!(serde_json::from_str::<&RawValue>(&out).is_ok(), "{out}");
        out
    }
}

fn put_run(out: &mut String, run: &ActiveRun) {
    let state = if run.stalled { "stalled" } else { "active" };
    put(out, format_args!(r#"{{"run":"{}","started":"{}","state":"{state}""#, run.run, run.started));
    if let Some(source) = &run.source {
        out.push_str(r#","source":"#);
        quoted(out, source);
    }
    if let Some(parent) = &run.parent {
        put(out, format_args!(r#","parent":"{parent}""#));
    }
    out.push('}');
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

fn put_reference(out: &mut String, reference: Option<&Reference>) {
    if let Some(reference) = reference {
        put(out, format_args!(r#","ref":{reference}"#));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::GapReason;

    #[test]
    fn a_gap_names_its_range() {
        let session = SessionId::parse("s").unwrap();
        let gap = Gap { from: Offset::new(1, 2), to: Offset::new(3, 9), lost: 7, reason: GapReason::Trimmed };
        let text = ServerMessage::Gap { session: &session, gap, filtered: false }.encode();
        assert_eq!(text, r#"{"type":"gap","session":"s","from":"1-2","to":"3-9","lost":7,"reason":"trimmed"}"#);
    }

    #[test]
    fn a_message_escapes_what_it_quotes() {
        let text =
            ServerMessage::Error { reference: None, session: None, code: Code::BadMessage, message: "\"\n\u{1}\\" }
                .encode();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "\"\n\u{1}\\");
    }
}
