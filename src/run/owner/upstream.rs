//! What the upstream says: bytes, events, silence, the end.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use tokio::time::Instant;

use super::{CallerEnd, Durability, End, Owner, Tagging};
use crate::framing::Decoder;
use crate::run::BrokenOff;
use crate::server::BodyError;
use crate::session::{Kind, Record, RunState, Terminal};
use crate::sse::{Event, Frame};
use crate::telemetry::{EventDropped, Fact, RunEnded, RunResumed, RunStalled};

/// How much of an unfinished last block is kept on the terminal entry.
const TAIL_BYTES: usize = 8 << 10;

impl Owner {
    pub(super) fn chunk(&mut self, chunk: Option<Result<http_body::Frame<Bytes>, BodyError>>) -> Option<End> {
        let frame = match chunk {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(run = %self.spec.run, %error, "the upstream's answer broke off");
                let reason = error.downcast_ref::<BrokenOff>().map_or("upstream_reset", |broken| broken.0);
                return Some(End::broken(Terminal::Failed, reason));
            }
            None => return Some(self.upstream_end(None)),
        };
        match frame.into_data() {
            Ok(data) => {
                self.heard = Instant::now();
                self.bytes += data.len() as u64;
                self.speaks();
                let crowded = self.runs.pending.load(Ordering::Acquire) >= self.runs.settings.pending_bytes;
                if let Some(whole) = &mut self.whole {
                    whole.add(&data, crowded);
                    return None;
                }
                self.decoder.feed(&data);
                while let Some(frame) = self.decoder.next() {
                    self.frame(frame);
                }
                if matches!(self.durability, Durability::Eager { .. } | Durability::Over) {
                    self.release(u64::MAX);
                } else {
                    // Comments after what is stored already need not wait.
                    self.release(self.stored_n);
                }
                None
            }
            Err(frame) => frame.into_trailers().ok().map(|trailers| self.upstream_end(Some(trailers))),
        }
    }

    /// The upstream has not been silent.
    pub(super) fn speaks(&mut self) {
        if std::mem::take(&mut self.stalled) {
            RunResumed { session: &self.spec.session, run: &self.spec.run }.emit(&self.runs.metrics);
            self.state(RunState::Resumed, "{}");
        }
    }

    pub(super) fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Filler(raw) => {
                if let Some(observer) = &mut self.observer {
                    observer.outside(&raw);
                }
                self.books.filler(raw);
            }
            Frame::Event { raw, event } => {
                self.last_event_failed = event.name.as_deref() == Some("error");
                if self.spec.ids == Tagging::UnlessTheirs {
                    self.spec.ids = if event.id.is_some() { Tagging::Off } else { Tagging::On };
                }
                self.found.look_into(&event.data);
                if let Some(observer) = &mut self.observer {
                    observer.event(event.name.as_deref(), &event.data);
                }
                let record = self.record(Kind::Event, event);
                self.keep(record, raw);
            }
            Frame::OversizePart(raw) => {
                self.oversize.get_or_insert_default().add(&raw);
                self.books.filler(raw);
            }
            Frame::OversizeEnd { raw, event } => {
                let mut dropped = self.oversize.take().unwrap_or_default();
                dropped.add(&raw);
                if !event {
                    return self.books.filler(raw);
                }
                self.drops(dropped.bytes());
                if let Some(observer) = &mut self.observer {
                    observer.missed();
                }
                let data = dropped.into_details().into();
                let record = self.record(Kind::EventDropped, Event { name: None, data, id: None });
                self.keep(record, raw);
            }
        }
    }

    /// An event of so many bytes is too large for the log.
    pub(super) fn drops(&mut self, bytes: u64) {
        let (session, run, first) = (&self.spec.session, &self.spec.run, self.dropped == 0);
        EventDropped { session, run, bytes, first }.emit(&self.runs.metrics);
        self.dropped += 1;
    }

    pub(super) fn keep(&mut self, record: Record, raw: Bytes) {
        self.events += 1;
        if self.durability == Durability::Over { self.books.filler(raw) } else { self.books.event(record, raw) }
    }

    pub(super) fn record(&self, kind: Kind, event: Event) -> Record {
        Record {
            kind,
            run: Some(self.spec.run.clone()),
            source: self.spec.source.clone(),
            event: event.name,
            id: event.id,
            data: event.data,
        }
    }

    pub(super) fn upstream_end(&mut self, trailers: Option<HeaderMap>) -> End {
        if let Some(whole) = self.whole.take() {
            return self.result(whole);
        }
        let next = Decoder::new(self.spec.format.framing, self.runs.settings.event_bytes);
        let (last, tail) = std::mem::replace(&mut self.decoder, next).finish();
        if let Some(last) = last {
            self.frame(last);
        }
        let tail = tail.raw;
        if !tail.is_empty() {
            self.books.filler(tail.clone());
        }
        let (state, reason) = self.judge(&tail);
        End { state, reason, by: None, caller: CallerEnd::Clean(trailers), tail }
    }

    /// The upstream has been silent for too long, or for long enough to say so.
    pub(super) fn silent(&mut self) -> Option<End> {
        if self.stalled {
            return Some(End::broken(Terminal::Failed, "stalled"));
        }
        self.stalled = true;
        let (session, run, silent_for) = (&self.spec.session, &self.spec.run, self.spec.stall);
        RunStalled { session, run, silent_for }.emit(&self.runs.metrics);
        self.state(RunState::Stalled, &json!({ "silent_ms": silent_for.as_millis() }).to_string());
        None
    }

    pub(super) fn state(&mut self, state: RunState, details: &str) {
        if self.durability != Durability::Over {
            let mut record = Record::run_state(self.spec.run.clone(), state, details.to_owned());
            record.source.clone_from(&self.spec.source);
            self.books.record(record);
        }
    }

    /// What every terminal says.
    pub(super) fn terminal_details(&mut self, state: Terminal, reason: &str) -> serde_json::Value {
        let duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut details = json!({
            "reason": reason,
            "upstream_status": self.spec.status,
            "events": self.events,
            "bytes": self.bytes,
            "duration_ms": duration_ms,
        });
        if self.dropped > 0 {
            details["dropped"] = self.dropped.into();
        }
        self.say_observed(state, &mut details);
        details
    }

    /// Writes the terminal into the books.
    pub(super) fn end(&mut self, mut end: End) {
        if let Durability::Eager { first_n } = self.durability {
            self.say_eager(first_n);
        }
        self.ended = true;
        let mut details = self.terminal_details(end.state, end.reason);
        if !end.tail.is_empty() {
            let kept = &end.tail[..end.tail.len().min(TAIL_BYTES)];
            details["tail"] = String::from_utf8_lossy(kept).into();
            details["tail_bytes"] = end.tail.len().into();
        }
        if let Some(by) = &end.by {
            details["by"] = serde_json::from_str(by).unwrap_or_default();
        }
        self.state(RunState::Ended(end.state), &details.to_string());
        if let Some(call) = self.spec.on_cancel.take().filter(|_| end.is_our_cancel()) {
            self.runs.tell_cancelled(call, self.found.values(), &self.spec.session, &self.spec.run);
        }
        let (session, run, terminal) = (&self.spec.session, &self.spec.run, end.state);
        let (reason, events, took) = (Some(end.reason), self.events, self.began.elapsed());
        let (route, dialect) = (&*self.spec.route, self.observed.dialect.as_ref().map(|dialect| &*dialect.name));
        RunEnded { session, run, route, dialect, terminal, reason, events, took }.emit(&self.runs.metrics);
        self.report_observed(terminal);
        self.say_cancelled(&mut end);
        self.caller_end = Some(end.caller);
        if self.durability != Durability::Stored {
            self.finish_caller();
        }
    }
}
