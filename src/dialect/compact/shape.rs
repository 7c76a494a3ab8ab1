//! What is left of an event without its delta texts and counters: two events of the same shape are one
//! with both texts.

use std::ops::Range;

use super::scan::{Found, Hit, scan};
use crate::dialect::sign::are;
use crate::dialect::{Dialect, Mark, Path, Texts};

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
        if let Some(number) = dialect.cumulative.iter().position(|known| look.shows(&known.when, name, None)) {
            return Some(latest(number, &dialect.cumulative[number].same, &look));
        }
        let mut slots: Vec<(Range<usize>, u8)> = Vec::new();
        let mut seen: Vec<(&Path, &Hit)> = Vec::new();
        for delta in &dialect.deltas {
            let counts = |hit: &&Hit| {
                let shown = |mark: &Mark| look.shows(mark, name, Some((&delta.text, &hit.elements)));
                data.as_bytes()[hit.value.start] == b'"'
                    && delta.when.as_ref().is_none_or(shown)
                    && !delta.unless.as_ref().is_some_and(shown)
            };
            for hit in look.hits(&delta.text).filter(counts) {
                // Two texts in one list may be one text: the second one of an event comes before the first one of the
                // next, which no merged event can say.
                let apart = |(path, other): &(&Path, &Hit)| {
                    let shared = path.shared(&delta.text);
                    other.value == hit.value
                        || path != &&delta.text && other.elements[..shared] == hit.elements[..shared]
                };
                if !seen.iter().all(apart) {
                    return None;
                }
                seen.push((&delta.text, hit));
                slots.push((hit.value.start + 1..hit.value.end - 1, DELTA));
            }
        }
        for path in &dialect.counters {
            slots.extend(look.hits(path).map(|hit| (hit.value.clone(), COUNTER)));
        }
        slots.sort_by_key(|(slot, _)| (slot.start, std::cmp::Reverse(slot.end)));
        slots.dedup();
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
        for hit in look.hits(path) {
            form.extend_from_slice(look.text(hit).as_bytes());
            form.push(b',');
        }
        form.push(LATEST);
    }
    Shape { form, texts: Vec::new(), spaces: Vec::new() }
}

/// The places that decide whether and how events are merged.
fn places(dialect: &Dialect) -> Vec<Path> {
    let deltas = &dialect.deltas;
    let texts = deltas.iter().map(|delta| &delta.text);
    let marks = deltas.iter().flat_map(|delta| delta.when.iter().chain(&delta.unless));
    let marks = marks.chain(dialect.cumulative.iter().map(|known| &known.when));
    let marked = marks.flat_map(|mark| mark.at.iter().chain(mark.with.keys()).chain(&mark.without));
    let same = dialect.cumulative.iter().flat_map(|known| &known.same);
    let mut places: Vec<Path> = Vec::new();
    for path in texts.chain(marked).chain(same).chain(&dialect.counters).chain(&dialect.alone) {
        if !places.contains(path) {
            places.push(path.clone());
        }
    }
    places
}

/// What stands in an event at the places that a dialect knows.
struct Look<'a> {
    data: &'a str,
    paths: &'a [Path],
    found: Found,
}

impl<'a> Look<'a> {
    /// Looks at all places that decide whether and how an event is merged. `None`: it is not JSON.
    fn at(dialect: &'a Dialect, data: &'a str) -> Option<Self> {
        let paths = dialect.merging.get_or_init(|| places(dialect));
        let found = scan(data, paths)?;
        Some(Look { data, paths, found })
    }

    /// What stands at this path, which must be one of those that were looked for.
    fn hits(&self, path: &Path) -> impl Iterator<Item = &Hit> {
        let number = self.paths.iter().position(|known| known == path);
        self.found.hits.iter().filter(move |hit| Some(hit.path) == number)
    }

    fn text(&self, hit: &Hit) -> &str {
        &self.data[hit.value.clone()]
    }

    fn is_there(&self, path: &Path) -> bool {
        self.hits(path).any(|hit| self.text(hit) != "null")
    }

    /// Whether the event shows it; where `from` is given, as it is seen from one text there: where the two
    /// paths begin alike, their `*` stand for the same elements.
    fn shows(&self, mark: &Mark, name: Option<&str>, from: Option<(&Path, &[usize])>) -> bool {
        let seen = |path: &Path| -> Vec<&str> {
            let hits = self.hits(path).filter(|hit| {
                from.is_none_or(|(text, elements)| {
                    let shared = path.shared(text);
                    hit.elements.get(..shared) == elements.get(..shared)
                })
            });
            hits.map(|hit| self.text(hit)).filter(|text| *text != "null").collect()
        };
        let has = |path: &Path, texts: Option<&Texts>| {
            let texts = texts.filter(|texts| !texts.are_anything());
            let reads = |json: &str| texts.map_or(json != "\"\"", |texts| are(texts, json));
            seen(path).into_iter().any(reads)
        };
        mark.event.as_ref().is_none_or(|names| names.are(name.unwrap_or("message")))
            && mark.data.as_ref().is_none_or(|wanted| wanted == self.data)
            && mark.at.as_ref().is_none_or(|at| has(at, mark.is.as_ref()))
            && mark.with.iter().all(|(path, texts)| has(path, Some(texts)))
            && mark.without.iter().all(|path| seen(path).is_empty())
    }
}
