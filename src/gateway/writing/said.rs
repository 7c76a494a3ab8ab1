//! What the head of a write says: the form of its body, whose it is, where it belongs.

use bytestring::ByteString;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};

use super::event::Labels;
use crate::server::Problem;
use crate::session::RunId;
use crate::wire::Code;

/// The longest name of a source, bytes.
const SOURCE_BYTES: usize = 128;

/// The largest number that every store keeps exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`: one event.
    One,
    /// `application/x-ndjson`, `application/jsonl`: one event a line.
    Lines,
    /// `text/event-stream`.
    Stream,
}

/// The headers of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// `Sidestream-Source`.
    pub(super) source: Option<ByteString>,
    /// `Sidestream-Run`.
    pub(super) run: Option<RunId>,
    /// `Sidestream-Parent-Run`.
    pub(super) parent: Option<RunId>,
    /// `Producer-Id`, `Producer-Epoch`, `Producer-Seq`.
    pub(super) producer: Option<Numbered>,
}

/// A producer that numbers its events itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    /// Its id.
    pub(super) id: ByteString,
    /// Its generation; a newer one fences the older.
    pub(super) epoch: u64,
    /// The number of the body's first event among the producer's events of this epoch, from 1.
    pub(super) seq: u64,
}

impl Form {
    /// The form that the headers name.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(bad("send the events uncompressed, without Content-Encoding"));
        }
        let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Ok(Form::One),
            "application/x-ndjson" | "application/jsonl" => Ok(Form::Lines),
            "text/event-stream" => Ok(Form::Stream),
            _ => Err(bad("Content-Type is `application/json` (one event), `application/x-ndjson` (one a line) or \
                          `text/event-stream`")),
        }
    }
}

impl Said {
    /// What the headers say.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let run = |name: &'static str| {
            let parse = |text: &str| RunId::parse(text).map_err(|error| bad(format!("{name}: {error}")));
            text(headers, name)?.map(parse).transpose()
        };
        let source = text(headers, "sidestream-source")?.map(|name| source(name).map_err(bad)).transpose()?;
        let numbers = [text(headers, "producer-epoch")?, text(headers, "producer-seq")?];
        let producer = match (text(headers, "producer-id")?, numbers) {
            (None, [None, None]) => None,
            (Some(id), [Some(epoch), Some(seq)]) => {
                let id = RunId::parse(id).map_err(|error| bad(format!("Producer-Id: {error}")))?;
                let (epoch, seq) = (number("Producer-Epoch", epoch, 0)?, number("Producer-Seq", seq, 1)?);
                Some(Numbered { id: id.as_str().into(), epoch, seq })
            }
            _ => return Err(bad("Producer-Id, Producer-Epoch and Producer-Seq go together; one of them is missing")),
        };
        Ok(Said { source, run: run("sidestream-run")?, parent: run("sidestream-parent-run")?, producer })
    }

    /// What holds for every event that does not say otherwise.
    pub(super) fn labels(&self) -> Labels {
        Labels { source: self.source.clone(), run: self.run.clone() }
    }
}

/// The name of an agent: 1 to 128 bytes without control characters. The error says so.
pub(super) fn source(name: &str) -> Result<ByteString, String> {
    match (1..=SOURCE_BYTES).contains(&name.len()) && !name.chars().any(char::is_control) {
        true => Ok(name.into()),
        false => Err(format!("a source has 1 to {SOURCE_BYTES} bytes and no control characters")),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Problem> {
    let Some(value) = headers.get(HeaderName::from_static(name)) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| bad(format!("{name} is not UTF-8")))?;
    Ok(Some(text))
}

fn number(name: &str, text: &str, least: u64) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten().filter(|number| (least..=MAX_NUMBER).contains(number));
    number.ok_or_else(|| bad(format!("{name} is a whole number from {least} to {MAX_NUMBER}")))
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_media_type_is_known_whatever_its_case_and_parameters() {
        let form = |value| Form::of(&headers(&[("content-type", value)])).ok();
        assert_eq!(form("application/json"), Some(Form::One));
        assert_eq!(form("Application/JSONL; charset=utf-8"), Some(Form::Lines));
        assert_eq!(form("text/event-stream;charset=utf-8"), Some(Form::Stream));
        // What a page of another origin may send without asking first.
        for other in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            assert_eq!(form(other), None, "{other}");
        }
    }

    #[test]
    fn a_producer_is_said_in_full_or_not_at_all() {
        let said = |pairs: &[(&'static str, &'static str)]| Said::of(&headers(pairs)).map(|said| said.producer);
        let (id, epoch, seq) = (("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "7"));
        assert_eq!(said(&[]), Ok(None));
        assert_eq!(said(&[id, epoch, seq]), Ok(Some(Numbered { id: "p".into(), epoch: 0, seq: 7 })));
        for partial in [&[id][..], &[epoch], &[seq], &[id, epoch], &[id, seq], &[epoch, seq]] {
            assert!(said(partial).is_err(), "{partial:?}");
        }
        for wrong in ["0", "-1", "+1", "1.0", "", "9007199254740992"] {
            assert!(said(&[id, epoch, ("producer-seq", wrong)]).is_err(), "{wrong}");
        }
        assert!(said(&[("producer-id", "~p"), epoch, seq]).is_err(), "ids of that form are ours");
    }
}
