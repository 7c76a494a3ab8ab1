//! How one entry is stored under its key (session number, seq).
//!
//! ```text
//! byte 0   format (high nibble, 1) and kind (low nibble)
//! byte 1   which texts are there: run, source, event, id; and whether the run is 16 raw bytes
//! varint   ms
//! texts    run (16 bytes where it is 32 lowercase hex digits), source, event, id: those there are
//! rest     data
//! ```
//! `seq` is in the key. Kinds and bits are never given a new meaning: the format is raised instead.

use bytestring::ByteString;

use super::encoding::{Decoder, put_text, put_varint};
use super::error::Fault;
use crate::session::{Entry, Kind, Offset, Record, RunId, RunState, Terminal};

const FORMAT: u8 = 1;

const RUN: u8 = 1;
const SOURCE: u8 = 2;
const EVENT: u8 = 4;
const ID: u8 = 8;
const RUN_IS_HEX: u8 = 16;

/// The stored form of `record` at `ms`.
pub(super) fn encode(ms: u64, record: &Record) -> Vec<u8> {
    let hex = record.run.as_ref().and_then(hex_run);
    let there = |text: &Option<ByteString>, bit: u8| if text.is_some() { bit } else { 0 };
    let mut bits = there(&record.source, SOURCE) | there(&record.event, EVENT) | there(&record.id, ID);
    if record.run.is_some() {
        bits |= RUN;
    }
    if hex.is_some() {
        bits |= RUN_IS_HEX;
    }
    let mut value = Vec::with_capacity(record.size() + 16);
    value.push(FORMAT << 4 | kind_code(record.kind));
    value.push(bits);
    put_varint(&mut value, ms);
    match (&record.run, hex) {
        (_, Some(bits)) => value.extend_from_slice(&bits.to_be_bytes()),
        (Some(run), None) => put_text(&mut value, run.as_str()),
        (None, None) => {}
    }
    for text in [&record.source, &record.event, &record.id].into_iter().flatten() {
        put_text(&mut value, text);
    }
    value.extend_from_slice(record.data.as_bytes());
    value
}

/// The entry with this `seq` and stored form.
pub(super) fn decode(seq: u64, value: &[u8]) -> Result<Entry, Fault> {
    let (mut rest, kind, bits, ms) = head(value)?;
    let run = match (bits & RUN != 0, bits & RUN_IS_HEX != 0) {
        (true, true) => {
            let raw = rest.bytes(16)?;
            let bits = u128::from_be_bytes(raw[..].try_into().map_err(|_| rest.damaged())?);
            Some(RunId::from_random(bits))
        }
        (true, false) => Some(RunId::from_store(&rest.text()?).map_err(|_| rest.damaged())?),
        (false, _) => None,
    };
    let mut text = |bit: u8| if bits & bit == 0 { Ok(None) } else { rest.text().map(Some) };
    let (source, event, id) = (text(SOURCE)?, text(EVENT)?, text(ID)?);
    let data = rest.remaining_text()?;
    Ok(Entry { offset: Offset { ms, seq }, record: Record { kind, run, source, event, id, data } })
}

/// When the entry with this stored form was written.
pub(super) fn decode_ms(value: &[u8]) -> Result<u64, Fault> {
    // Enough for the head; the data may be large.
    Ok(head(&value[..value.len().min(12)])?.3)
}

/// The run that this entry ends, if it ends one.
pub(super) fn ended_run(entry: &Entry) -> Option<(&RunId, Terminal)> {
    match entry.record.state()? {
        RunState::Ended(terminal) => Some((entry.record.run.as_ref()?, terminal)),
        _ => None,
    }
}

fn head(value: &[u8]) -> Result<(Decoder, Kind, u8, u64), Fault> {
    let mut rest = Decoder::new(value, "entry");
    let first = rest.byte()?;
    if first >> 4 != FORMAT {
        return Err(rest.damaged());
    }
    let kind = kind_of(first & 0x0f).ok_or(rest.damaged())?;
    let bits = rest.byte()?;
    let ms = rest.varint()?;
    Ok((rest, kind, bits, ms))
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Event => 0,
        Kind::EventDropped => 1,
        Kind::Run => 2,
        Kind::Input => 3,
        Kind::Status => 4,
        Kind::Result => 5,
        Kind::Steer => 6,
    }
}

fn kind_of(code: u8) -> Option<Kind> {
    Some(match code {
        0 => Kind::Event,
        1 => Kind::EventDropped,
        2 => Kind::Run,
        3 => Kind::Input,
        4 => Kind::Status,
        5 => Kind::Result,
        6 => Kind::Steer,
        _ => return None,
    })
}

/// The 128 bits of a run id that was made from them.
fn hex_run(run: &RunId) -> Option<u128> {
    let text = run.as_str();
    let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let kind = prop_oneof![
            Just(Kind::Event),
            Just(Kind::EventDropped),
            Just(Kind::Run),
            Just(Kind::Input),
            Just(Kind::Status),
            Just(Kind::Result),
            Just(Kind::Steer)
        ];
        let run = prop_oneof![
            any::<u128>().prop_map(RunId::from_random),
            "[A-Za-z0-9._-]{1,128}".prop_map(|text| RunId::parse(&text).unwrap()),
            "[0-9A-F]{32}".prop_map(|text| RunId::parse(&text).unwrap()),
        ];
        let text = || proptest::option::of(any::<String>().prop_map(ByteString::from));
        (kind, proptest::option::of(run), text(), text(), text(), any::<String>())
            .prop_map(|(kind, run, source, event, id, data)| Record { kind, run, source, event, id, data: data.into() })
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(record in record(), ms: u64, seq: u64) {
            let value = encode(ms, &record);
            prop_assert_eq!(decode_ms(&value).unwrap(), ms);
            prop_assert_eq!(decode(seq, &value).unwrap(), Entry { offset: Offset { ms, seq }, record });
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>, record in record(), cut: prop::sample::Index) {
            let _ = decode(1, &bytes);
            let _ = decode_ms(&bytes);
            let value = encode(1, &record);
            let _ = decode(1, &value[..cut.index(value.len())]);
        }
    }

    #[test]
    fn the_stored_form_does_not_change_by_accident() {
        let record = Record {
            kind: Kind::Event,
            run: Some(RunId::from_random(0x0102)),
            source: None,
            event: Some("e".into()),
            id: None,
            data: "hi".into(),
        };
        let mut expected = vec![0x10, RUN | EVENT | RUN_IS_HEX, 0xac, 0x02];
        expected.extend([0; 14]);
        expected.extend([1, 2, 1, b'e', b'h', b'i']);
        assert_eq!(encode(300, &record), expected);
    }

    #[test]
    fn another_format_or_kind_is_refused() {
        for first in [0x20, 0x00, 0x1f] {
            assert!(matches!(decode(1, &[first, 0, 1]), Err(Fault::Damaged("entry"))), "{first:x}");
        }
    }
}
