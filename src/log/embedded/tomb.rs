//! What is stored of a session that is gone.

use super::encoding::{put_offset, put_varint};
use super::error::Fault;
use super::state::{FORMAT, decoder};
use crate::log::Closed;
use crate::session::Offset;

/// What is left of a session: enough to answer who comes late, and to use no offset again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tomb {
    pub(super) last: Offset,
    pub(super) buried_ms: u64,
    pub(super) reason: TombReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TombReason {
    Erased,
    Expired,
}

impl Tomb {
    /// What a late writer is told.
    pub(super) fn closed(&self) -> Closed {
        match self.reason {
            TombReason::Erased => Closed::Erased,
            TombReason::Expired => Closed::Expired,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let reason = match self.reason {
            TombReason::Erased => 0,
            TombReason::Expired => 1,
        };
        let mut value = vec![FORMAT, reason];
        put_offset(&mut value, self.last);
        put_varint(&mut value, self.buried_ms);
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Fault> {
        let mut from = decoder(value, "tombstone")?;
        let reason = match from.byte()? {
            0 => TombReason::Erased,
            1 => TombReason::Expired,
            _ => return Err(from.damaged()),
        };
        Ok(Tomb { last: from.offset()?, buried_ms: from.varint()?, reason })
    }
}
