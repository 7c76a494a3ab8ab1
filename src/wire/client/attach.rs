//! `attach`: from where, and which entries.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::field::{Field, fields, session};
use crate::session::{After, RunId, SessionId};
use crate::wire::Code;

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

pub(super) fn read(text: &str) -> Field<Attach> {
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
}
