//! The proof that a reader misses nothing: what it was sent is an exact slice of the log.

use super::message::{Message, Offset};

/// Where a reader of one session is. Fails where an entry is missing, comes twice or out of order.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    at: Offset,
    /// The block of which more parts are to come, and the number of the next.
    block: Option<(Offset, Offset, u64)>,
}

impl Slice {
    /// A reader that begins after `offset`.
    pub(crate) fn after(offset: Offset) -> Self {
        Slice { at: offset, block: None }
    }

    /// The last offset that the reader knows.
    pub(crate) fn at(&self) -> Offset {
        self.at
    }

    /// Takes the next message of this session.
    pub(crate) fn take(&mut self, message: &Message) {
        if matches!(message.kind(), "at" | "gap" | "live") {
            assert_eq!(self.block, None, "{message}");
        }
        match message.kind() {
            "event" if message.is_ephemeral() => assert!(message["offset"].is_null(), "{message}"),
            "event" | "event_dropped" | "run" | "input" | "result" | "steer" | "status" => {
                let (first, offset) = (message.first(), message.offset());
                let follows = match message.prev() {
                    Some(prev) => prev == self.at && first.seq > self.at.seq + 1,
                    None => first.seq == self.at.seq + 1,
                };
                assert!(follows && first.seq <= offset.seq, "after {} came {message}", self.at);
                assert!(first.ms >= self.at.ms, "time went back: after {} came {message}", self.at);
                let (part, parts) = message.part();
                assert_eq!(self.block.take().unwrap_or((first, offset, 1)), (first, offset, part), "{message}");
                // The cursor moves with the last part.
                if part == parts {
                    self.at = offset;
                } else {
                    self.block = Some((first, offset, part + 1));
                }
            }
            "at" => {
                assert_eq!(message.prev(), Some(self.at), "{message}");
                self.at = message.offset();
            }
            "gap" => {
                assert_eq!(message["from"], self.at.to_string(), "{message}");
                self.at = message["to"].as_str().unwrap().parse().unwrap();
            }
            "live" => assert_eq!(message.offset(), self.at, "{message}"),
            _ => {}
        }
    }
}
