//! A comment line now and then in a body of Server-Sent Events, so that nothing on the way takes a silent
//! connection for dead.
//!
//! One line alone, without a blank line behind it, and only between events: a blank line is an empty message to
//! some readers, and a line within an event breaks others. By a fixed rhythm whatever else is sent, because there are
//! clients that take a rhythm which stops for a connection that has died.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::body::{Body, BodyError};

/// What is sent.
const LINE: &[u8] = b": keep-alive\n";

/// U+FEFF; means nothing, and only where a stream begins.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// A body with keep-alives.
pub struct KeptAlive {
    body: Body,
    ticks: Interval,
    due: bool,
    place: Place,
    /// What nobody has seen of the body yet begins it, behind a line of ours.
    behind_ours: bool,
}

impl KeptAlive {
    /// `body`, an event stream, with a comment line every so often.
    pub fn of(body: Body, every: Duration) -> Body {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Body::new(KeptAlive { body, ticks, due: false, place: Place::default(), behind_ours: false })
    }
}

impl http_body::Body for KeptAlive {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while self.ticks.poll_tick(cx).is_ready() {
            self.due = true;
        }
        if self.due && self.place.is_between_events() && !self.body.is_end_stream() {
            self.due = false;
            self.behind_ours |= !self.place.begun;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(LINE)))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        let frame = match frame.into_data() {
            Ok(mut data) => {
                if std::mem::take(&mut self.behind_ours) && data.starts_with(BOM) {
                    // Behind a line of ours it would be a part of the first field's name.
                    data = data.slice(BOM.len()..);
                }
                self.place.pass(&data);
                Frame::data(data)
            }
            Err(other) => other,
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.body.size_hint().lower());
        hint
    }
}

/// Where in an event stream we are (WHATWG HTML §9.2.5).
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Something has passed.
    begun: bool,
    /// The present line's first byte, if it has one.
    line: Option<u8>,
    /// The present block has a line that is no comment.
    block: bool,
    /// The last byte was a CR, which an LF may follow.
    after_cr: bool,
}

impl Place {
    fn is_between_events(self) -> bool {
        self.line.is_none() && !self.block && !self.after_cr
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        while let Some(&first) = bytes.first() {
            let after_cr = std::mem::take(&mut self.after_cr);
            if first == b'\n' && after_cr {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.line.get_or_insert(first);
                return;
            };
            if end > 0 {
                self.line.get_or_insert(first);
            }
            match self.line.take() {
                None => self.block = false,
                Some(b':') => {}
                Some(_) => self.block = true,
            }
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn between(pieces: &[&str]) -> bool {
        let mut place = Place::default();
        pieces.iter().for_each(|piece| place.pass(piece.as_bytes()));
        place.is_between_events()
    }

    #[test]
    fn a_place_between_events_is_known_however_the_bytes_are_cut() {
        for stream in ["", "data: x\n\n", ": c\n", "data: x\r\n\r\n", "data: x\n\n: c\n", "event: ping\n\n", "\n\n"] {
            assert!(between(&[stream]), "{stream:?}");
            for cut in 1..stream.len() {
                assert!(between(&[&stream[..cut], &stream[cut..]]), "{stream:?} at {cut}");
            }
        }
        // An LF may follow a last CR: between the two a line of ours would make a blank line of it.
        for stream in ["d", "data: x\n", "data: x\n: c\n", ": c", "data: x\r\n", "data: x\r\n\r", "data: x\r\r"] {
            assert!(!between(&[stream]), "{stream:?}");
        }
    }

    /// What a caller gets of pieces that come after so many milliseconds each, with a line due every 40.
    async fn sent(pieces: Vec<(u64, &'static str)>) -> String {
        let stream = futures_util::stream::unfold(pieces.into_iter(), |mut pieces| async move {
            let (after, piece) = pieces.next()?;
            tokio::time::sleep(Duration::from_millis(after)).await;
            Some((Ok::<_, BodyError>(Frame::data(Bytes::from_static(piece.as_bytes()))), pieces))
        });
        let kept = KeptAlive::of(BodyExt::boxed_unsync(StreamBody::new(stream)), Duration::from_millis(40));
        String::from_utf8(kept.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    const OURS: &str = ": keep-alive\n";

    #[tokio::test]
    async fn the_rhythm_does_not_depend_on_what_else_is_sent() {
        let busy = sent((0..40).map(|_| (5, "data: x\n\n")).collect()).await;
        assert!(busy.matches(OURS).count() >= 2, "{busy}");
        assert_eq!(busy.replace(OURS, ""), "data: x\n\n".repeat(40));
    }

    #[tokio::test]
    async fn a_line_that_is_due_within_an_event_waits_for_its_end() {
        let sent = sent(vec![(1, "data: x\n"), (120, "data: y\n\n"), (1, "data: z\n\n")]).await;
        assert!(sent.contains(&format!("data: x\ndata: y\n\n{OURS}")), "{sent}");
        assert_eq!(sent.replace(OURS, ""), "data: x\ndata: y\n\ndata: z\n\n");
    }

    #[tokio::test]
    async fn a_stream_that_begins_late_means_the_same_behind_a_line_of_ours() {
        let sent = sent(vec![(120, "\u{feff}data: x\n\n")]).await;
        assert_eq!(sent.trim_start_matches(OURS), "data: x\n\n");
        assert!(sent.starts_with(OURS));
    }
}
