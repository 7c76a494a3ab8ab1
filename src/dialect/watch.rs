//! What of a dialect's events is looked at while a run goes on: its marks and token counts, prepared so that an
//! event that shows none of them costs a few searches in its text.

use super::places::{Found, Places};
use super::sign::{Hint, Sign};
use super::{Dialect, Mark, Path};

/// A dialect's marks and counts, prepared.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    places: Places,
    signs: Vec<(What, Sign)>,
    tokens_when: Option<Sign>,
    /// One of these is in the text of every event that has counts; `None`: nothing is known about it.
    tokens_hints: Option<Vec<Hint>>,
    input: Vec<usize>,
    output: Vec<usize>,
    error: Vec<usize>,
}

/// What an event shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Recognised,
    End,
    Failed,
    Cancelled,
}

/// What one event shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) recognised: bool,
    pub(super) end: bool,
    pub(super) failed: bool,
    pub(super) cancelled: bool,
    /// What the upstream says about its failure.
    pub(super) error: Option<String>,
    pub(super) tokens: Tokens,
}

/// Counts of tokens, as the stream says them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of what was asked.
    pub input: Option<u64>,
    /// Of the answer.
    pub output: Option<u64>,
}

impl Watch {
    pub(super) fn new(dialect: &Dialect) -> Self {
        let mut places = Places::default();
        let marks = [
            (What::Recognised, &dialect.recognise),
            (What::End, &dialect.end),
            (What::Failed, &dialect.failed),
            (What::Cancelled, &dialect.cancelled),
        ];
        let mut signs = Vec::new();
        for (what, marks) in marks {
            signs.extend(marks.iter().map(|mark| (what, Sign::new(mark, &mut places))));
        }
        let usage = &dialect.usage;
        let tokens_when = usage.when.as_ref().map(|when| Sign::new(when, &mut places));
        let mut add = |paths: &[Path]| paths.iter().map(|path| places.add(path)).collect();
        let (input, output, error) = (add(&usage.input), add(&usage.output), add(&dialect.error));
        let counts = usage.input.iter().chain(&usage.output);
        let mut tokens_hints: Option<Vec<_>> = counts.map(Hint::member).collect();
        if let Some(hints) = &mut tokens_hints {
            // The same name may stand at several places.
            hints.sort_by(|a, b| a.needle().cmp(b.needle()));
            hints.dedup_by(|a, b| a.needle() == b.needle());
        }
        Watch { places, signs, tokens_when, tokens_hints, input, output, error }
    }

    /// Whether an event says that its stream is of this dialect.
    pub(super) fn recognises(&self, name: Option<&str>, data: &str) -> bool {
        self.shows(name, data, |what| what == What::Recognised).recognised
    }

    /// What an event shows, recognition included where it still matters.
    pub(super) fn look(&self, name: Option<&str>, data: &str, recognise: bool) -> Shown {
        self.shows(name, data, |what| recognise || what != What::Recognised)
    }

    fn shows(&self, name: Option<&str>, data: &str, matters: impl Fn(What) -> bool) -> Shown {
        let mut shown = Shown::default();
        let mut read = None;
        for (what, sign) in self.signs.iter().filter(|(what, _)| matters(*what)) {
            if !sign.may_be_in(name, data)
                || (sign.reads_json() && !sign.is_in(read.get_or_insert_with(|| self.places.find(data))))
            {
                continue;
            }
            match what {
                What::Recognised => shown.recognised = true,
                What::End => shown.end = true,
                What::Failed => shown.failed = true,
                What::Cancelled => shown.cancelled = true,
            }
        }
        if self.may_have_tokens(name, data) {
            let found = read.get_or_insert_with(|| self.places.find(data));
            if self.tokens_when.as_ref().is_none_or(|when| when.is_in(found)) {
                shown.tokens = Tokens { input: sum(&self.input, found), output: sum(&self.output, found) };
            }
        }
        if shown.failed {
            let found = read.get_or_insert_with(|| self.places.find(data));
            shown.error = self.error.iter().find_map(|place| found.at(*place).find_map(text));
        }
        shown
    }

    fn may_have_tokens(&self, name: Option<&str>, data: &str) -> bool {
        self.tokens_hints.as_ref().is_none_or(|hints| hints.iter().any(|hint| hint.is_in(data)))
            && self.tokens_when.as_ref().is_none_or(|when| when.may_be_in(name, data))
    }
}

impl Dialect {
    /// What of its events is looked at.
    pub(super) fn watch(&self) -> &Watch {
        self.watch.get_or_init(|| Watch::new(self))
    }
}

impl Mark {
    /// Whether an event of this name and data shows it.
    pub fn is_shown_by(&self, name: Option<&str>, data: &str) -> bool {
        let mut places = Places::default();
        let sign = Sign::new(self, &mut places);
        sign.may_be_in(name, data) && (!sign.reads_json() || sign.is_in(&places.find(data)))
    }
}

fn sum(places: &[usize], found: &Found<'_>) -> Option<u64> {
    let counts = places.iter().flat_map(|place| found.at(*place)).filter_map(|json| json.parse::<u64>().ok());
    counts.reduce(u64::saturating_add)
}

fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(description: &str, data: &str) -> Shown {
        Dialect::read(&format!("name = \"own\"\n{description}")).unwrap().watch().look(None, data, true)
    }

    #[test]
    fn counts_of_one_event_are_added_up_and_a_name_that_json_may_escape_is_found_as_well() {
        let counts = |description: &str, data: &str| shown(description, data).tokens;
        let both = "usage.input = [\"/a\", \"/b/*/c\"]\nusage.output = [\"/d\"]";
        let found = counts(both, r#"{"a":1,"b":[{"c":2},{"c":"x"},{"c":3}],"d":1.5}"#);
        assert_eq!(found, Tokens { input: Some(6), output: None });
        let escaped = counts("usage.input = [\"/zähler\"]", r#"{"z\u00e4hler":7}"#);
        assert_eq!(escaped.input, Some(7));
        let when = "usage.input = [\"/a\"]\nusage.when = { at = \"/t\", is = \"end\" }";
        assert_eq!(counts(when, r#"{"a":1,"t":"end"}"#).input, Some(1));
        assert_eq!(counts(when, r#"{"a":1,"t":"begin"}"#).input, None);
    }

    #[test]
    fn an_event_may_show_several_things_at_once() {
        let marks = "recognise = [{ at = \"/t\" }]\nend = [{ at = \"/t\", is = \"bad\" }]\nfailed = [{ at = \"/t\", is = \"b*\" }]\nerror = [\"/no\", \"/why\"]";
        let bad = shown(marks, r#"{"t":"bad","why":"q\"uoted"}"#);
        assert!(bad.recognised && bad.end && bad.failed && !bad.cancelled);
        assert_eq!(bad.error.as_deref(), Some("q\"uoted"));
        assert_eq!(shown(marks, r#"{"t":"good"}"#), Shown { recognised: true, ..Shown::default() });
        assert_eq!(shown(marks, "bad b"), Shown::default());
    }
}
