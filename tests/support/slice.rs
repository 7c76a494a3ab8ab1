//! The proof that a reader misses nothing: what it was sent is an exact slice of the log.

use super::message::{Message, Offset};

/// Where a reader of one session is. Fails where an entry is missing, comes twice or out of order.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    at: Offset,
}

impl Slice {
    /// A reader that begins after `offset`.
    pub(crate) fn after(offset: Offset) -> Self {
        Slice { at: offset }
    }

    /// The last offset that the reader knows.
    pub(crate) fn at(&self) -> Offset {
        self.at
    }

    /// Takes the next message of this session.
    pub(crate) fn take(&mut self, message: &Message) {
        match message.kind() {
            "event" if message.is_ephemeral() => assert!(message["offset"].is_null(), "{message}"),
            "event" | "event_dropped" | "run" | "input" | "result" | "steer" | "status" => {
                let offset = message.offset();
                let follows = match message.prev() {
                    Some(prev) => prev == self.at && offset.seq > self.at.seq + 1,
                    None => offset.seq == self.at.seq + 1,
                };
                assert!(follows, "after {} came {message}", self.at);
                assert!(offset.ms >= self.at.ms, "time went back: after {} came {message}", self.at);
                self.at = offset;
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
