//! `attach`: from where, and which entries.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::field::{Field, fields, session, wrong};
use crate::session::{After, RunId, SessionId};
use crate::wire::Code;

/// The longest window over which live deltas are merged, milliseconds.
const MAX_ROLLUP_MS: u64 = 500;

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
    /// Deltas of the history come merged.
    pub compact: bool,
    /// Live deltas that come within so long of one another come merged; zero: none.
    pub rollup: Duration,
    /// Attach to a session that does not exist yet and follow it from its first entry.
    pub create: bool,
}

#[derive(Deserialize)]
struct RawAttach<'a> {
    session: Option<String>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    replay: Option<String>,
    #[serde(borrow)]
    rollup_ms: Option<&'a RawValue>,
    runs: Option<Vec<String>>,
    sources: Option<Vec<String>>,
    create: Option<bool>,
}

pub(super) fn read(text: &str) -> Field<Attach> {
    let raw: RawAttach<'_> = fields(text)?;
    let compact = raw.replay.as_deref().map_or(Ok(false), is_compact).map_err(wrong)?;
    let rollup = raw.rollup_ms.map_or(Ok(Duration::ZERO), |ms| rollup_window(ms.get())).map_err(wrong)?;
    let run_ids = |ids: Vec<String>| -> Field<Vec<RunId>> {
        ids.iter().map(|id| RunId::parse(id).map_err(|e| (Code::BadMessage, format!("`runs`: {e}")))).collect()
    };
    Ok(Attach {
        session: session(raw.session)?,
        after: raw.after.map_or(Ok(After::Start), after_from_json)?,
        runs: raw.runs.map(run_ids).transpose()?,
        sources: raw.sources,
        compact,
        rollup,
        create: raw.create.unwrap_or(false),
    })
}

/// The value of `replay`: `compact` or `full`. The error says so.
pub fn is_compact(replay: &str) -> Result<bool, String> {
    match replay {
        "compact" => Ok(true),
        "full" => Ok(false),
        _ => Err("`replay` is \"full\" or \"compact\"".into()),
    }
}

/// The value of `rollup_ms`, as it is written. The error says what it may be.
pub fn rollup_window(ms: &str) -> Result<Duration, String> {
    let ms = ms.parse().ok().filter(|ms| *ms <= MAX_ROLLUP_MS);
    ms.map(Duration::from_millis).ok_or_else(|| format!("`rollup_ms` is a whole number from 0 to {MAX_ROLLUP_MS}"))
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
    use crate::wire::ClientMessage;

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
    fn a_window_for_live_deltas_is_at_most_half_a_second() {
        let rollup = |value: &str| {
            let text = format!(r#"{{"type":"attach","session":"s","rollup_ms":{value}}}"#);
            match ClientMessage::parse(&text) {
                Ok((ClientMessage::Attach(attach), _)) => Ok(attach.rollup),
                Ok(other) => panic!("{other:?}"),
                Err(rejected) => Err((rejected.code, rejected.message)),
            }
        };
        assert_eq!(rollup("500"), Ok(Duration::from_millis(500)));
        for bad in ["501", "-1", "1.5", "\"5\""] {
            let message = "`rollup_ms` is a whole number from 0 to 500".into();
            assert_eq!(rollup(bad), Err((Code::BadMessage, message)), "{bad}");
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
            compact: false,
            rollup: Duration::ZERO,
            create: false,
        };
        assert_eq!(message, ClientMessage::Attach(expected));
        assert_eq!(reference.unwrap().to_string(), "7");
    }
}
