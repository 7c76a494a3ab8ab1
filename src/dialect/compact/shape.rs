//! What is left of an event without its delta texts and counters: two events of the same shape are one
//! with both texts.

use std::ops::Range;

use super::scan::{Found, scan};
use crate::dialect::{Delta, Dialect, Mark, Path, Texts};

/// Stands in a form for a delta's text. No JSON text has this byte, nor the next two.
pub(super) const DELTA: u8 = 1;
/// Stands in a form for a counter's value.
pub(super) const COUNTER: u8 = 2;
/// Begins the form of an event that holds all that the ones before it held.
const LATEST: u8 = 3;

/// The shape of an event's data.
#[derive(Debug)]
pub(super) struct Shape {
    /// The data without whitespace outside of strings, with [`DELTA`] and [`COUNTER`] in place of what
    /// may differ.
    pub(super) form: Vec<u8>,
    /// Where its delta texts stand, in order: the raw contents of the strings. Of an event that stands
    /// for the ones before it: nothing.
    pub(super) texts: Vec<Range<usize>>,
    /// The whitespace: before which byte of the form, how long, and its first byte.
    pub(super) spaces: Vec<Space>,
}

/// Whitespace between tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// The byte of the form that it stands before.
    pub(super) before: usize,
    /// Its length.
    pub(super) len: usize,
    /// Its first byte.
    pub(super) byte: u8,
}

impl Shape {
    /// The shape of an event of this dialect; `None`: it is none that may be merged.
    pub(super) fn of(dialect: &Dialect, name: Option<&str>, data: &str) -> Option<Self> {
        let look = Look::at(dialect, data)?;
        if dialect.alone.iter().any(|path| look.is_there(path)) {
            return None;
        }
        if let Some(number) = dialect.cumulative.iter().position(|known| look.shows(&known.when, name)) {
            return Some(latest(number, &dialect.cumulative[number].same, &look));
        }
        let mut slots: Vec<(Range<usize>, u8)> = Vec::new();
        let counts = |delta: &&Delta| {
            delta.when.as_ref().is_none_or(|mark| look.shows(mark, name))
                && !delta.unless.as_ref().is_some_and(|mark| look.shows(mark, name))
        };
        for delta in dialect.deltas.iter().filter(counts) {
            let strings = look.values(&delta.text).filter(|value| data.as_bytes()[value.start] == b'"');
            slots.extend(strings.map(|value| (value.start + 1..value.end - 1, DELTA)));
        }
        for path in &dialect.counters {
            slots.extend(look.values(path).map(|value| (value, COUNTER)));
        }
        slots.sort_by_key(|(slot, _)| (slot.start, std::cmp::Reverse(slot.end)));
        // What stands in a counter is a part of it.
        let mut end = 0;
        slots.retain(|(slot, _)| {
            slot.start >= end && {
                end = slot.end;
                true
            }
        });
        let texts: Vec<_> = slots.iter().filter(|(_, kind)| *kind == DELTA).map(|(slot, _)| slot.clone()).collect();
        (!texts.is_empty()).then(|| Shape::without(data, slots, texts, &look.found.spaces))
    }

    /// Whether events of this shape stand for the ones before them.
    pub(super) fn is_latest(&self) -> bool {
        self.form.first() == Some(&LATEST)
    }

    fn without(data: &str, slots: Vec<(Range<usize>, u8)>, texts: Vec<Range<usize>>, blank: &[Range<usize>]) -> Self {
        let (mut form, mut spaces) = (Vec::with_capacity(data.len()), Vec::new());
        let slots = slots.into_iter().map(|(slot, kind)| (slot, Some(kind)));
        let mut cuts: Vec<_> = slots.chain(blank.iter().map(|space| (space.clone(), None))).collect();
        cuts.sort_by_key(|(cut, _)| cut.start);
        let mut at = 0;
        for (cut, kind) in cuts {
            // Whitespace in a counter is a part of it.
            if cut.start < at {
                continue;
            }
            form.extend_from_slice(&data.as_bytes()[at..cut.start]);
            match kind {
                Some(kind) => form.push(kind),
                None => {
                    spaces.push(Space { before: form.len(), len: cut.len(), byte: data.as_bytes()[cut.start] });
                }
            }
            at = cut.end;
        }
        form.extend_from_slice(&data.as_bytes()[at..]);
        Shape { form, texts, spaces }
    }
}

/// The shape of an event that stands for all before it that have the same values.
fn latest(number: usize, same: &[Path], look: &Look<'_>) -> Shape {
    let mut form = vec![LATEST];
    form.extend_from_slice(&number.to_le_bytes());
    for path in same {
        for value in look.values(path) {
            form.extend_from_slice(&look.data.as_bytes()[value]);
            form.push(b',');
        }
        form.push(LATEST);
    }
    Shape { form, texts: Vec::new(), spaces: Vec::new() }
}

/// What stands in an event at the places that a dialect knows.
struct Look<'a> {
    data: &'a str,
    paths: Vec<&'a Path>,
    found: Found,
}

impl<'a> Look<'a> {
    /// Looks at all places that decide whether and how an event is merged. `None`: it is not JSON.
    fn at(dialect: &'a Dialect, data: &'a str) -> Option<Self> {
        let places = |mark: &'a Mark| mark.at.iter().chain(mark.with.keys()).chain(&mark.without);
        let deltas = dialect.deltas.iter().flat_map(|delta| {
            let marks = delta.when.iter().chain(&delta.unless);
            marks.flat_map(places).chain([&delta.text])
        });
        let cumulative = dialect.cumulative.iter().flat_map(|known| known.same.iter().chain(places(&known.when)));
        let alone = dialect.counters.iter().chain(&dialect.alone);
        let paths: Vec<_> = deltas.chain(cumulative).chain(alone).collect();
        let found = scan(data, &paths)?;
        Some(Look { data, paths, found })
    }

    /// The values that stand at this path, which must be one of those that were looked for.
    fn values(&self, path: &Path) -> impl Iterator<Item = Range<usize>> {
        // The same path may have been looked for twice.
        let number = self.paths.iter().position(|known| *known == path);
        self.found.hits.iter().filter(move |hit| Some(hit.path) == number).map(|hit| hit.value.clone())
    }

    fn is_there(&self, path: &Path) -> bool {
        self.values(path).any(|value| &self.data[value] != "null")
    }

    fn shows(&self, mark: &Mark, name: Option<&str>) -> bool {
        let has = |path: &Path, texts: Option<&Texts>| {
            let values = self.values(path).map(|value| &self.data[value]).filter(|value| *value != "null");
            values.into_iter().any(|value| texts.is_none_or(|texts| reads(value, texts)))
        };
        mark.event.as_ref().is_none_or(|names| names.are(name.unwrap_or("message")))
            && mark.data.as_deref().is_none_or(|wanted| self.data == wanted)
            && mark.at.as_ref().is_none_or(|path| has(path, mark.is.as_ref()))
            && mark.with.iter().all(|(path, texts)| has(path, Some(texts)))
            && !mark.without.iter().any(|path| self.is_there(path))
    }
}

/// Whether a JSON value that is not null is one of these texts, or a number or word as it is written.
fn reads(value: &str, texts: &Texts) -> bool {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        _ if texts.are_anything() => true,
        Some(inner) if inner.contains('\\') => serde_json::from_str::<String>(value).is_ok_and(|text| texts.are(&text)),
        Some(inner) => texts.are(inner),
        None if value.starts_with(['{', '[']) => false,
        None => texts.are(value),
    }
}
