//! What a run's events have shown, and what follows from it for its end.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::{CallerEnd, End, Ending, Owner};
use crate::framing::Encoder;
use crate::session::Terminal;
use crate::telemetry::{DialectContradicted, Fact, TextMissing, TokensCounted};

impl Owner {
    /// How the run ended whose upstream has ended its answer as HTTP says, with `tail` left over. What the direct
    /// caller gets does not depend on it: a clean end, as the upstream gave it.
    pub(super) fn judge(&mut self, tail: &[u8]) -> (Terminal, &'static str) {
        self.look_back(tail);
        let observed = &self.observed;
        // Who writes says what it wants to say: its dialect only tells what that is.
        let owes = self.spec.ending != Ending::Upload;
        match () {
            () if self.last_event_failed || (owes && observed.failed) => (Terminal::Failed, "error_event"),
            () if owes && observed.cancelled => (Terminal::Cancelled, "upstream"),
            () if owes && observed.is_truncated() => (Terminal::Failed, "truncated"),
            () => (Terminal::Completed, "end"),
        }
    }

    /// Puts what was observed into the details of a terminal.
    pub(super) fn say_observed(&mut self, state: Terminal, details: &mut Value) {
        self.look_back(b"");
        let (observed, reason) = (&self.observed, details["reason"].as_str().unwrap_or_default());
        let ended_by_upstream = matches!(reason, "end" | "error_event" | "truncated" | "upstream");
        let end = match state {
            _ if observed.end => Some("marker"),
            Terminal::Completed if ended_by_upstream => Some("unverified"),
            _ => None,
        };
        if let Some(end) = end {
            details["end"] = end.into();
        }
        if ended_by_upstream {
            details["framing"] = if self.spec.ending == Ending::Close { "close" } else { "delimited" }.into();
        }
        if let Some(dialect) = &observed.dialect {
            details["dialect"] = dialect.name.as_str().into();
        }
        for (direction, count) in [("input", observed.tokens.input), ("output", observed.tokens.output)] {
            if let Some(count) = count {
                details["usage"][direction] = count.into();
            }
        }
        if let Some(message) = &observed.error {
            details["error"] = json!({ "message": message });
        }
    }

    /// Tells operators what was observed, after the end.
    pub(super) fn report_observed(&self, state: Terminal) {
        let (observed, route, metrics) = (&self.observed, &*self.spec.route, &self.runs.metrics);
        TokensCounted { route, tokens: observed.tokens }.emit(metrics);
        let framed_otherwise = self.spec.format.contradicts.as_ref();
        if let Some(named) = observed.contradicts.as_ref().or(framed_otherwise) {
            let shown = observed.dialect.as_ref().map(|dialect| &*dialect.name);
            let first = self.runs.is_news(route, &named.name);
            DialectContradicted { route, named: &named.name, shown, first }.emit(metrics);
        } else if let Some(dialect) =
            // One that failed or was stopped may never have come to its text.
            observed.dialect.as_ref().filter(|_| observed.without_text && state == Terminal::Completed)
        {
            let first = self.runs.is_news(route, &dialect.name);
            TextMissing { route, dialect: &dialect.name, first }.emit(metrics);
        }
    }

    /// Where somebody else has stopped the run: tells its direct caller so in words of its dialect, if that has
    /// any; its end is a clean one then.
    pub(super) fn say_cancelled(&mut self, end: &mut End) {
        // Inside of an event nothing can be said.
        if !end.is_our_cancel() || self.caller.is_none() || self.oversize.is_some() {
            return;
        }
        let Some(dialect) = self.observed.dialect.as_ref().filter(|dialect| !dialect.on_cancelled.is_empty()) else {
            return;
        };
        let (mut encoder, mut said) = (Encoder::new(self.spec.format.framing), BytesMut::new());
        for event in &dialect.on_cancelled {
            encoder.write(event.event.as_deref(), &event.data, None, &mut said);
        }
        self.books.filler(said.freeze());
        end.caller = CallerEnd::Clean(None);
    }

    /// The events are over: takes what they have shown.
    fn look_back(&mut self, tail: &[u8]) {
        if let Some(observer) = self.observer.take() {
            self.observed = observer.finish(tail);
        }
    }
}
