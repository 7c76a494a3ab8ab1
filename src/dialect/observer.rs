//! Looks at the events of one run as they are stored: which dialect they are of, whether the answer is whole,
//! whether it failed, what it cost.
//!
//! Runs for every event of every run: an event that shows nothing costs a few searches in its text. Holds no
//! event; what it keeps of the upstream's words is bounded.

use std::sync::Arc;

use super::{Dialect, Dialects, RECOGNISED_WITHIN, Tokens};

/// Bytes of what stands outside of events that are kept, for what they may say at the end.
const OUTSIDE_BYTES: usize = 8 << 10;

/// Bytes of the upstream's error message that are kept.
const ERROR_BYTES: usize = 1 << 10;

/// Events after which it means something that none had text: shorter answers may have none to say.
const TEXT_WITHIN: u64 = 8;

/// Looks at one run.
#[derive(Debug)]
pub struct Observer {
    dialects: Arc<Dialects>,
    stage: Stage,
    events: u64,
    /// An event had data. (MCP's first one, which only gives an id, has none.)
    spoke: bool,
    contradicts: Option<Arc<Dialect>>,
    /// An event was too large to be looked at.
    missed: bool,
    outside: Vec<u8>,
    /// More than is kept has come outside of events since the last one.
    too_much_outside: bool,
}

/// What is known about the dialect.
#[derive(Debug)]
enum Stage {
    /// None of the events so far has shown a mark of the dialect that is `named`, where there is one; `other` is
    /// what the first of them has shown that shows any.
    Open { named: Option<Account>, other: Option<Account> },
    /// This it is.
    Known(Account),
    /// None that we know.
    Opaque,
}

/// What the events have shown of one dialect.
#[derive(Debug)]
struct Account {
    dialect: Arc<Dialect>,
    end: bool,
    failed: bool,
    cancelled: bool,
    error: Option<String>,
    tokens: Tokens,
    has_text: bool,
}

/// What a run has shown.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The dialect of its events; `None`: they are opaque.
    pub dialect: Option<Arc<Dialect>>,
    /// The dialect that it was said to be of and is not.
    pub contradicts: Option<Arc<Dialect>>,
    /// The answer was seen to be complete.
    pub end: bool,
    /// The upstream has said that it failed.
    pub failed: bool,
    /// The upstream has said that it was stopped.
    pub cancelled: bool,
    /// What the upstream has said about its failure. Payload: not for logs of ours.
    pub error: Option<String>,
    /// What it cost, as far as it was said.
    pub tokens: Tokens,
    /// There was an event that nobody has looked at: it may have been the end.
    pub missed: bool,
    /// The run had some events, and none has text where its dialect, a custom one, says that text grows.
    pub without_text: bool,
}

impl Observed {
    /// Whether the answer broke off although its upstream ended it cleanly: its dialect has an end, and that was
    /// not seen.
    pub fn is_truncated(&self) -> bool {
        let ends = self.dialect.as_ref().is_some_and(|dialect| !dialect.end.is_empty());
        ends && !self.end && !self.failed && !self.cancelled && !self.missed
    }
}

impl Observer {
    /// Looks at a run that is said to be of `named`, or of which nothing is said.
    pub fn new(dialects: Arc<Dialects>, named: Option<Arc<Dialect>>) -> Self {
        let stage = match named.map(Account::new) {
            // It is never recognised by its events: so it is what it is said to be.
            Some(named) if named.dialect.recognise.is_empty() => Stage::Known(named),
            named => Stage::Open { named, other: None },
        };
        Observer {
            dialects,
            stage,
            events: 0,
            spoke: false,
            contradicts: None,
            missed: false,
            outside: Vec::new(),
            too_much_outside: false,
        }
    }

    /// The next event.
    pub fn event(&mut self, name: Option<&str>, data: &str) {
        self.events += 1;
        self.spoke |= !data.is_empty();
        self.outside.clear();
        self.too_much_outside = false;
        match &mut self.stage {
            Stage::Opaque => {}
            Stage::Known(account) => {
                account.event(name, data, false);
            }
            Stage::Open { .. } => self.open(name, data),
        }
    }

    /// The next event, which is too large to be looked at.
    pub fn missed(&mut self) {
        self.missed = true;
    }

    /// Bytes that carry no event. Where the last thing that an upstream sends is JSON outside of its framing, as Gemini
    /// sends errors, it counts at the end.
    pub fn outside(&mut self, raw: &[u8]) {
        let raw = if self.outside.is_empty() { raw.trim_ascii_start() } else { raw };
        if raw.is_empty() || raw.starts_with(b":") || self.too_much_outside {
            return;
        }
        match self.outside.len() + raw.len() > OUTSIDE_BYTES {
            true => (self.too_much_outside, self.outside) = (true, Vec::new()),
            false => self.outside.extend_from_slice(raw),
        }
    }

    /// The dialect, as far as it is known now.
    pub fn dialect(&self) -> Option<&Arc<Dialect>> {
        match &self.stage {
            Stage::Known(account) => Some(&account.dialect),
            Stage::Open { named, other } => named.as_ref().or(other.as_ref()).map(|account| &account.dialect),
            Stage::Opaque => None,
        }
    }

    /// The run is over; `tail` is what was left unfinished.
    pub fn finish(mut self, tail: &[u8]) -> Observed {
        self.outside(tail);
        if let Ok(said) = std::str::from_utf8(&self.outside)
            && said.trim_ascii().starts_with('{')
        {
            let said = said.trim_ascii();
            let account = match &mut self.stage {
                Stage::Known(account) | Stage::Open { named: Some(account), .. } => Some(account),
                Stage::Open { named: None, other } => other.as_mut(),
                Stage::Opaque => None,
            };
            if let Some(account) = account {
                account.outside(said);
            }
        }
        let (account, contradicts) = match self.stage {
            Stage::Known(account) => (Some(account), self.contradicts),
            // Nothing came that could show anything else.
            Stage::Open { named: Some(named), other: None } if !self.spoke || named.failed => (Some(named), None),
            Stage::Open { named, other } => (other, named.map(|named| named.dialect)),
            Stage::Opaque => (None, self.contradicts),
        };
        let missed = self.missed;
        let Some(account) = account else { return Observed { contradicts, missed, ..Observed::default() } };
        let looks_for_text = account.dialect.custom && !account.dialect.deltas.is_empty();
        Observed {
            contradicts,
            missed,
            end: account.end,
            failed: account.failed,
            cancelled: account.cancelled,
            error: account.error,
            tokens: account.tokens,
            without_text: looks_for_text && !account.has_text && self.events >= TEXT_WITHIN && !missed,
            dialect: Some(account.dialect),
        }
    }

    /// The next of the first events.
    fn open(&mut self, name: Option<&str>, data: &str) {
        let Stage::Open { mut named, mut other } = std::mem::replace(&mut self.stage, Stage::Opaque) else { return };
        if named.as_mut().is_some_and(|named| named.event(name, data, true)) {
            self.stage = named.map_or(Stage::Opaque, Stage::Known);
            return;
        }
        if other.is_none() {
            other = self.dialects.recognise(name, data).cloned().map(Account::new);
        }
        if let Some(other) = &mut other {
            other.event(name, data, false);
        }
        self.stage = match (named, other) {
            (Some(named), other) if self.events < RECOGNISED_WITHIN => Stage::Open { named: Some(named), other },
            (named, Some(other)) => {
                self.contradicts = named.map(|named| named.dialect);
                Stage::Known(other)
            }
            (None, None) if self.events < RECOGNISED_WITHIN => Stage::Open { named: None, other: None },
            (named, None) => {
                self.contradicts = named.map(|named| named.dialect);
                Stage::Opaque
            }
        };
    }
}

impl Account {
    fn new(dialect: Arc<Dialect>) -> Self {
        Account {
            dialect,
            end: false,
            failed: false,
            cancelled: false,
            error: None,
            tokens: Tokens::default(),
            has_text: false,
        }
    }

    /// Takes an event. Whether it shows anything of the dialect: with `recognise`, also that it is this one.
    fn event(&mut self, name: Option<&str>, data: &str, recognise: bool) -> bool {
        let shown = self.dialect.watch().look(name, data, recognise);
        self.end |= shown.end;
        self.failed |= shown.failed;
        self.cancelled |= shown.cancelled;
        self.error = self.error.take().or(shown.error.map(cut));
        let adds = self.dialect.usage.add;
        for (sum, count) in
            [(&mut self.tokens.input, shown.tokens.input), (&mut self.tokens.output, shown.tokens.output)]
        {
            let before = sum.filter(|_| adds).unwrap_or_default();
            *sum = count.map(|count| before.saturating_add(count)).or(*sum);
        }
        if self.dialect.custom && !self.has_text {
            self.has_text = !self.dialect.texts(name, data).is_empty();
        }
        shown.recognised || shown.end || shown.failed || shown.cancelled
    }

    /// What came last stands outside of the framing: only that it failed can be said there.
    fn outside(&mut self, said: &str) {
        let shown = self.dialect.watch().look(None, said, false);
        if shown.failed {
            self.failed = true;
            self.error = self.error.take().or(shown.error.map(cut));
        }
    }
}

/// What is kept of the upstream's words.
fn cut(mut text: String) -> String {
    let end = (0..=ERROR_BYTES.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: &str = r#"{"object":"chat.completion.chunk","choices":[{"delta":{"content":"x"}}]}"#;
    const STOP: &str = r#"{"type":"message_stop"}"#;
    const START: &str = r#"{"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}"#;
    const OTHER: &str = r#"{"x":1}"#;

    fn dialects() -> Arc<Dialects> {
        let own = Dialect::read("name = \"own\"\nend = [{ data = \"bye\" }]\n[[delta]]\ntext = \"/t\"").unwrap();
        Arc::new(Dialects::new([own]))
    }

    fn observed(named: Option<&str>, events: &[&str], tail: &str) -> Observed {
        let dialects = dialects();
        let named = named.map(|name| dialects.named(name).unwrap().clone());
        let mut observer = Observer::new(dialects, named);
        events.iter().for_each(|data| observer.event(None, data));
        observer.finish(tail.as_bytes())
    }

    fn name(dialect: &Option<Arc<Dialect>>) -> Option<&str> {
        dialect.as_ref().map(|dialect| &*dialect.name)
    }

    #[test]
    fn the_first_of_the_first_eight_events_that_shows_a_dialect_decides() {
        for (opaque, known) in [(0, Some("anthropic-messages")), (7, Some("anthropic-messages")), (8, None)] {
            let events = [vec![OTHER; opaque], vec![START, CHUNK, STOP]].concat();
            let observed = observed(None, &events, "");
            assert_eq!((name(&observed.dialect), observed.end), (known, known.is_some()), "{opaque}");
            assert_eq!(observed.tokens.input, known.map(|_| 7));
        }
    }

    #[test]
    fn a_dialect_that_the_first_events_contradict_is_not_what_the_run_is_judged_by() {
        for (events, shown) in [
            (vec![START, STOP], Some("anthropic-messages")),
            (vec![START; 20], Some("anthropic-messages")),
            (vec![OTHER], None),
            (vec![OTHER; 20], None),
        ] {
            let observed = observed(Some("openai-chat"), &events, "");
            assert_eq!((name(&observed.dialect), name(&observed.contradicts)), (shown, Some("openai-chat")));
        }
        // Any of its marks speaks for it, and so does it that there is nothing that speaks against it.
        for events in [vec![OTHER, CHUNK], vec![r#"{"error":{"message":"m"}}"#], vec!["[DONE]"], vec![], vec![""]] {
            let observed = observed(Some("openai-chat"), &events, "");
            assert_eq!((name(&observed.dialect), observed.contradicts.is_none()), (Some("openai-chat"), true));
        }
        assert!(observed(Some("openai-chat"), &[], "").is_truncated());
    }

    #[test]
    fn a_dialect_that_no_event_can_show_is_what_it_is_said_to_be() {
        let whole = observed(Some("own"), &[CHUNK, "bye"], "");
        assert_eq!((name(&whole.dialect), whole.end, whole.without_text), (Some("own"), true, false));
        // One answer that says nothing is none that says it elsewhere.
        let silent = observed(Some("own"), &[OTHER; 8], "");
        assert_eq!((silent.without_text, observed(Some("own"), &[OTHER; 7], "").without_text), (true, false));
        let cut = observed(Some("own"), &[r#"{"t":"x"}"#], "");
        assert_eq!((cut.is_truncated(), cut.without_text), (true, false));
    }

    #[test]
    fn an_error_outside_of_the_events_counts_where_nothing_follows_it() {
        let chunk = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}"#;
        let error = "{\n  \"error\": {\"message\": \"overloaded\"}\n}\n";
        let failed = observed(None, &[chunk], error);
        assert_eq!((failed.failed, failed.error.as_deref()), (true, Some("overloaded")));
        let mut observer = Observer::new(dialects(), None);
        observer.event(None, chunk);
        observer.outside(b"\n\n");
        observer.outside(error.as_bytes());
        observer.outside(b": comment\n");
        observer.event(None, chunk);
        assert!(!observer.finish(b"data: {\"error\":").failed);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut observer = Observer::new(dialects(), None);
        observer.event(None, CHUNK);
        (0..100).for_each(|_| observer.outside(&[b'{'; 1000]));
        assert!(observer.outside.capacity() <= 2 * OUTSIDE_BYTES);
        observer.event(None, &format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(9_999)));
        assert_eq!(observer.finish(b"").error.unwrap().len(), ERROR_BYTES);
    }
}
