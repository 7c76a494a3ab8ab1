//! What travels over a session's channel. Documented in `docs/store-layout.md`.
//!
//! ```text
//! entries <prev> <first>\n<len>,<len>,…;<len>,…\n<strings>
//! ids <prev> <first> <last>
//! check
//! ```
//!
//! and the notes (`notes`).
//!
//! `entries`: one group of lengths per entry, one length per string; the strings follow without
//! separators, names and values in turn. All entries have the `ms` of `first`, and contiguous `seq`.
//! A push that cannot be read is a reason to read the log, never an error.

use std::sync::Arc;

use bytes::Bytes;

use super::fields::entry_of;
use super::notes;
use crate::log::Push;
use crate::session::{Entry, Offset};

/// The push in `message`.
pub(super) fn decode(message: Bytes) -> Push {
    entries(&message).or_else(|| notes::decode(&message).map(Push::Note)).unwrap_or(Push::Check)
}

/// The last offset that `message` names, without decoding entries.
pub(super) fn last_offset(message: &[u8]) -> Option<Offset> {
    let Some((head, rest)) = line(message) else {
        let ids = str::from_utf8(message).ok()?.strip_prefix("ids ")?;
        return ids.rsplit(' ').next()?.parse().ok();
    };
    let (_, first) = head_of(head)?;
    let (lens, _) = line(rest)?;
    let more = lens.iter().filter(|&&byte| byte == b';').count() as u64;
    Some(Offset::new(first.ms, first.seq.checked_add(more)?))
}

fn entries(message: &Bytes) -> Option<Push> {
    let (head, rest) = line(message)?;
    let (prev, first) = head_of(head)?;
    let (lens, strings) = line(rest)?;
    let lens = str::from_utf8(lens).ok()?;
    let mut strings = message.slice_ref(strings);
    let mut offset = first;
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    for group in lens.split(';') {
        let mut record = Vec::with_capacity(12);
        for len in group.split(',') {
            let len: usize = len.parse().ok()?;
            if len > strings.len() {
                return None;
            }
            record.push(strings.split_to(len));
        }
        let pairs = record.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        entries.push(entry_of(offset, pairs).ok()?);
        offset.seq = offset.seq.checked_add(1)?;
    }
    strings.is_empty().then_some(Push::Entries { prev, entries })
}

fn head_of(head: &[u8]) -> Option<(Offset, Offset)> {
    let (prev, first) = str::from_utf8(head).ok()?.strip_prefix("entries ")?.split_once(' ')?;
    Some((prev.parse().ok()?, first.parse().ok()?))
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back_with_their_offsets() {
        let message = Bytes::from_static(b"entries 5-1 7-2\n4,2;5,1,4,0\ndatahieventxdata");
        assert_eq!(last_offset(&message), Some(Offset::new(7, 3)));
        let Push::Entries { prev, entries } = decode(message) else { panic!("no entries") };
        assert_eq!(prev, Offset::new(5, 1));
        let read: Vec<_> = entries.iter().map(|e| (e.offset, &*e.record.data, e.record.event.as_deref())).collect();
        assert_eq!(read, [(Offset::new(7, 2), "hi", None), (Offset::new(7, 3), "", Some("x"))]);
    }

    #[test]
    fn whatever_else_comes_is_a_reason_to_read() {
        assert_eq!(last_offset(b"ids 5-1 7-2 7-9"), Some(Offset::new(7, 9)));
        let odd = [
            "check",
            "ids 5-1 7-2 7-9",
            "",
            "entries 5-1 7-2\n4,3\ndatahi",
            "entries 5-1 7-2\n4,1\ndatahi",
            "entries 5-1\n4,2\ndatahi",
            "entries 5-1 7-2\n4,x\ndatahi",
            "entries 5-1 7-18446744073709551615\n4,2;4,0\ndatahidata",
        ];
        for message in odd {
            assert!(matches!(decode(Bytes::from_static(message.as_bytes())), Push::Check), "{message:?}");
        }
    }
}
