//! Records as stream fields, and back. Only the fields that are present are stored.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use redis::{Cmd, Value};

use crate::log::Unavailable;
use crate::session::{Entry, InstanceId, Kind, Offset, Record, RunId, Terminal};

/// What `TIME` answers: seconds and microseconds.
pub(super) type Clock = (u64, u64);

/// The server's time in milliseconds since the Unix epoch.
pub(super) fn now_ms((seconds, micros): Clock) -> u64 {
    seconds * 1000 + micros / 1000
}

/// The names and values of a record's fields, in the order in which they are stored.
pub(super) fn strings_of(record: &Record) -> impl Iterator<Item = &str> {
    let kind = (record.kind != Kind::Event).then(|| record.kind.as_str());
    [
        ("kind", kind),
        ("run", record.run.as_ref().map(RunId::as_str)),
        ("source", record.source.as_deref()),
        ("event", record.event.as_deref()),
        ("id", record.id.as_deref()),
        ("data", Some(&*record.data)),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| [name, value]))
    .flatten()
}

/// Records as the arguments of a script: `counts`, `lens`, `bytes`, then the strings of all.
#[derive(Debug, Default)]
pub(super) struct Batch {
    counts: Vec<u8>,
    lens: String,
    bytes: usize,
    arguments: usize,
}

impl Batch {
    /// Measures `records`. Where they are larger than `push_limit` bytes, their push will only
    /// announce them.
    pub(super) fn of(records: &[Record], push_limit: usize) -> Self {
        let mut batch = Batch::default();
        for record in records {
            let mut strings = 0;
            for string in strings_of(record) {
                batch.lens.push_str(match strings {
                    0 if batch.counts.is_empty() => "",
                    0 => ";",
                    _ => ",",
                });
                batch.lens.push_str(&string.len().to_string());
                strings += 1;
            }
            batch.counts.push(strings);
            batch.bytes += record.size();
            batch.arguments += usize::from(strings);
        }
        if batch.bytes > push_limit {
            batch.lens.clear();
        }
        batch
    }

    /// About how large the arguments are: how many, how many bytes.
    pub(super) fn weight(&self) -> (usize, usize) {
        (self.arguments + 16, self.bytes + self.lens.len() + 8 * self.arguments + 512)
    }

    /// Adds the arguments.
    pub(super) fn add_to(&self, command: &mut Cmd, records: &[Record]) {
        command.arg(self.counts.as_slice()).arg(&self.lens).arg(self.bytes);
        for record in records {
            for string in strings_of(record) {
                command.arg(string);
            }
        }
    }
}

/// The entry at `offset` with these field names and values.
pub(super) fn entry_of(
    offset: Offset,
    strings: impl Iterator<Item = (Bytes, Bytes)>,
) -> Result<Arc<Entry>, Unavailable> {
    let mut record =
        Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: ByteString::new() };
    for (name, value) in strings {
        match &name[..] {
            b"kind" => {
                record.kind = str::from_utf8(&value).ok().and_then(Kind::parse).ok_or_else(|| foreign(offset))?;
            }
            b"run" => {
                let run = str::from_utf8(&value).ok().and_then(|run| RunId::from_store(run).ok());
                record.run = Some(run.ok_or_else(|| foreign(offset))?);
            }
            b"source" => record.source = Some(text(offset, value)?),
            b"event" => record.event = Some(text(offset, value)?),
            b"id" => record.id = Some(text(offset, value)?),
            b"data" => record.data = text(offset, value)?,
            // A newer version of the same layout may add fields.
            _ => {}
        }
    }
    Ok(Arc::new(Entry { offset, record }))
}

/// The entries of an `XRANGE` answer.
pub(super) fn entries_of(answer: Value) -> Result<Vec<Arc<Entry>>, Unavailable> {
    let Value::Array(rows) = answer else { return Err(unexpected("XRANGE")) };
    rows.into_iter().map(row).collect()
}

fn row(row: Value) -> Result<Arc<Entry>, Unavailable> {
    let Value::Array(row) = row else { return Err(unexpected("XRANGE")) };
    let Ok([Value::BulkString(id), Value::Array(strings)]) = <[Value; 2]>::try_from(row) else {
        return Err(unexpected("XRANGE"));
    };
    let offset = str::from_utf8(&id).ok().and_then(|id| id.parse().ok()).ok_or_else(|| unexpected("XRANGE"))?;
    let mut strings = strings.into_iter().map(|string| match string {
        Value::BulkString(bytes) => Bytes::from(bytes),
        _ => Bytes::new(),
    });
    entry_of(offset, std::iter::from_fn(|| Some((strings.next()?, strings.next()?))))
}

fn text(offset: Offset, value: Bytes) -> Result<ByteString, Unavailable> {
    ByteString::try_from(value).map_err(|_| foreign(offset))
}

fn foreign(offset: Offset) -> Unavailable {
    Unavailable::new(format!("entry {offset} was not written by this version: upgrade, or remove what writes there"))
}

/// Redis answered `command` with something that it never answers.
pub(super) fn unexpected(command: &str) -> Unavailable {
    Unavailable::new(format!("unexpected answer to {command}"))
}

/// Stands where a run has no parent, or no key: no id and no [`word`] is that.
pub(super) const NONE: &str = "~";

/// What meta's field `run:<id>` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunField {
    /// Who drives or drove it; `-` where meta was rebuilt.
    pub(super) owner: InstanceId,
    /// Offset of its `started` entry.
    pub(super) started: Offset,
    /// Offset of the newest entry of its owner; of the `started` one where only that is known.
    pub(super) last: Offset,
    /// Its end.
    pub(super) ended: Option<(Offset, Terminal)>,
    /// The run that has begun it.
    pub(super) parent: Option<RunId>,
    /// Who asked for its cancellation.
    pub(super) cancel: Option<ByteString>,
}

impl RunField {
    /// Reads it; `None` for a run that was never started, too.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(13, ' ').collect();
        let [state, _counter, _nonce, _n, owner, started, last, ended, cancel, parent, _route, _key, by] = parts[..]
        else {
            return None;
        };
        let ended = match state {
            "active" => None,
            state => Some((ended.parse().ok()?, Terminal::parse(state)?)),
        };
        let (owner, started) = (InstanceId::from_store(owner).ok()?, started.parse().ok()?);
        let last = last.parse().ok()?;
        Some(RunField { owner, started, last, ended, parent: parent_of(parent), cancel: cancel_of(cancel, by) })
    }

    /// Reads the value of an active run.
    pub(super) fn parse_active(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(7, ' ').collect();
        let [started, owner, cancel, parent, _route, _key, by] = parts[..] else { return None };
        let (owner, started) = (InstanceId::from_store(owner).ok()?, started.parse().ok()?);
        Some(RunField {
            owner,
            started,
            last: started,
            ended: None,
            parent: parent_of(parent),
            cancel: cancel_of(cancel, by),
        })
    }
}

fn parent_of(word: &str) -> Option<RunId> {
    RunId::from_store(word).ok()
}

fn cancel_of(flag: &str, by: &str) -> Option<ByteString> {
    (flag == "1").then(|| by.into())
}

/// A text as one word: whatever is not `A-Z a-z 0-9 . _ -` is percent-encoded.
pub(super) fn word(text: &str) -> String {
    if text.is_empty() {
        return "%".into();
    }
    let mut word = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            word.push(char::from(byte));
        } else {
            word.push_str(&format!("%{byte:02X}"));
        }
    }
    word
}

/// The text that [`word`] was made of.
pub(super) fn unword(word: &str) -> Option<ByteString> {
    if word == "%" {
        return Some(ByteString::new());
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(word.len()), word);
    while let Some((plain, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(escaped.get(..2)?, 16).ok()?);
        rest = &escaped[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: Option<&str>, id: Option<&str>) -> Record {
        Record {
            kind: Kind::Event,
            run: Some(RunId::from_random(1)),
            source: None,
            event: event.map(ByteString::from),
            id: id.map(ByteString::from),
            data: "ä\n".into(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_with_empty_and_absent_fields_told_apart() {
        let offset = Offset::new(5, 6);
        for record in [record(None, None), record(Some(""), Some("")), record(Some("e"), Some("7"))] {
            let strings: Vec<Bytes> = strings_of(&record).map(|s| Bytes::copy_from_slice(s.as_bytes())).collect();
            let pairs = strings.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            let entry = entry_of(offset, pairs).expect("an entry");
            assert_eq!(*entry, Entry { offset, record });
        }
    }

    #[test]
    fn the_kind_of_an_event_is_not_stored() {
        assert!(!strings_of(&record(None, None)).any(|string| string == "kind"));
    }

    #[test]
    fn a_batch_above_the_limit_is_not_pushed() {
        let records = [record(None, None), record(Some("e"), None)];
        assert_eq!(Batch::of(&records, 1000).lens, "3,32,4,3;3,32,5,1,4,3");
        assert_eq!(Batch::of(&records, 10).lens, "");
    }

    #[test]
    fn a_nonce_is_one_word_whatever_it_holds() {
        assert_eq!(word("a-b c%"), "a-b%20c%25");
        assert_eq!(word(""), "%");
        for text in ["", "a-b c%", "~", "ü\n", "%41"] {
            assert_eq!(unword(&word(text)).as_deref(), Some(text));
        }
        assert_eq!(unword("a%4"), None);
    }
}
