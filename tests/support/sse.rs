//! An SSE client: an independent parser over a body, that knows how the body ended.

use std::num::NonZeroUsize;

use bytes::Bytes;

use super::http::{Answer, End};
use super::message::Message;
use super::recordings::Event;

/// Reads an answer as events.
pub(crate) struct SseClient {
    answer: Answer,
    decoder: sse_core::SseDecoder,
    chunk: Bytes,
}

impl SseClient {
    /// A reader of an answer that must be an event stream.
    pub(crate) fn new(answer: Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.header("content-type").starts_with("text/event-stream"), "{answer:?}");
        SseClient { answer, decoder: sse_core::SseDecoder::with_limit(NonZeroUsize::MAX), chunk: Bytes::new() }
    }

    /// The next event, or how the body ended.
    pub(crate) async fn next(&mut self) -> Result<Event, End> {
        loop {
            while let Some(event) = self.decoder.next(&mut self.chunk) {
                if let sse_core::SseEvent::Message(event) = event.unwrap() {
                    let id = event.last_event_id.as_deref().unwrap_or_default().to_owned();
                    return Ok(Event { name: event.event.into_owned(), data: event.data, id });
                }
            }
            self.chunk = self.answer.more().await?;
        }
    }

    /// The next event of a session's stream, which carries a message.
    pub(crate) async fn message(&mut self) -> Result<(Event, Message), End> {
        let event = self.next().await?;
        let message = Message::parse(&event.data);
        Ok((event, message))
    }

    /// All events to the end, and how it ended.
    pub(crate) async fn rest(mut self) -> (Vec<Event>, End) {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Ok(event) => events.push(event),
                Err(end) => return (events, end),
            }
        }
    }
}
