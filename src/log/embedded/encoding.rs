//! The primitives of our stored values: varints and length-prefixed texts.
//!
//! Integers are LEB128 varints; texts are a varint length and UTF-8 bytes. Nothing here knows what
//! the values mean.

use bytes::{Buf, BufMut, Bytes};
use bytestring::ByteString;

use super::error::Fault;
use crate::session::Offset;

pub(super) fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

pub(super) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_varint(to, text.len() as u64);
    to.put_slice(text.as_bytes());
}

/// 0 for none; 1 and the text for some.
pub(super) fn put_optional(to: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => to.put_u8(0),
        Some(text) => {
            to.put_u8(1);
            put_text(to, text);
        }
    }
}

pub(super) fn put_offset(to: &mut Vec<u8>, offset: Offset) {
    put_varint(to, offset.ms);
    put_varint(to, offset.seq);
}

/// Reads a stored value from its beginning; an error names the value.
pub(super) struct Decoder {
    rest: Bytes,
    what: &'static str,
}

impl Decoder {
    pub(super) fn new(value: &[u8], what: &'static str) -> Self {
        Decoder { rest: Bytes::copy_from_slice(value), what }
    }

    pub(super) fn damaged(&self) -> Fault {
        Fault::Damaged(self.what)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        self.rest.try_get_u8().map_err(|_| self.damaged())
    }

    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<Bytes, Fault> {
        if len > self.rest.len() {
            return Err(self.damaged());
        }
        Ok(self.rest.split_to(len))
    }

    /// A text that shares the memory of the value.
    pub(super) fn text(&mut self) -> Result<ByteString, Fault> {
        let len = self.varint()?;
        let bytes = self.bytes(usize::try_from(len).map_err(|_| self.damaged())?)?;
        ByteString::try_from(bytes).map_err(|_| self.damaged())
    }

    pub(super) fn optional(&mut self) -> Result<Option<ByteString>, Fault> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(self.damaged()),
        }
    }

    pub(super) fn offset(&mut self) -> Result<Offset, Fault> {
        Ok(Offset { ms: self.varint()?, seq: self.varint()? })
    }

    /// Everything that is left, as text.
    pub(super) fn remaining_text(&mut self) -> Result<ByteString, Fault> {
        let rest = std::mem::take(&mut self.rest);
        ByteString::try_from(rest).map_err(|_| self.damaged())
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }
}
