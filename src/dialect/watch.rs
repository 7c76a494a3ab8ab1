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
    tokens_hints: Vec<Hint>,
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
        let hints: Option<Vec<_>> = usage.input.iter().chain(&usage.output).map(Hint::member).collect();
        Watch { places, signs, tokens_when, tokens_hints: hints.unwrap_or_default(), input, output, error }
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
        self.tokens_hints.iter().any(|hint| hint.is_in(data))
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
