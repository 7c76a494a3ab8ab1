//! What a stream remembers across its blocks: the last event id and the reconnection time.

use bytes::Bytes;
use bytestring::ByteString;

use super::line;

/// The fields that outlive their block.
#[derive(Debug, Default)]
pub(super) struct Carry {
    /// The standard's "last event ID buffer": set by a field, not yet by its block's end.
    buffer: ByteString,
    /// The standard's "last event ID string": what a client would send on reconnect.
    last: ByteString,
    /// Whether `buffer` was set since the last event that was handed out.
    changed: bool,
    /// The reconnection time in milliseconds.
    retry: Option<u64>,
}

impl Carry {
    /// Takes over `id` and `retry`; does nothing for any other field.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            // A copy, so that an id never keeps a whole buffer alive.
            b"id" if !value.contains(&0) => {
                self.buffer = line::text(Bytes::copy_from_slice(value));
                self.changed = true;
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                // All digits: the only way to fail is to be too large.
                let digits = std::str::from_utf8(value).unwrap_or_default();
                self.retry = Some(digits.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }

    /// A blank line: the id of the block counts from here on.
    pub(super) fn commit(&mut self) {
        if self.changed {
            self.last = self.buffer.clone();
        }
    }

    /// The id that the event handed out now has to carry, see [`super::Event::id`].
    pub(super) fn take_changed(&mut self) -> Option<ByteString> {
        std::mem::take(&mut self.changed).then(|| self.buffer.clone())
    }

    /// The last event id of the stream.
    pub(super) fn last_event_id(&self) -> &str {
        &self.last
    }

    /// The reconnection time that the stream asked for, in milliseconds.
    pub(super) fn retry(&self) -> Option<u64> {
        self.retry
    }
}
