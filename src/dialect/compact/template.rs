//! A shape made ready to recognise the next event of it quickly: pieces that must be the same, and
//! between them what may differ.

use std::ops::Range;

use super::scan::{is_space, string_end, value_end};
use super::shape::{COUNTER, DELTA, Shape, Space};

/// See the module. It never says yes to an event of another shape; it may say no to one of its own whose
/// whitespace is elsewhere: then the shapes are compared, and it learns.
#[derive(Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
    /// The whitespace of the event that it was learned from.
    spaces: Vec<Space>,
    /// Where whitespace was seen to differ, as places in the form, ascending.
    loose: Vec<usize>,
}

#[derive(Debug)]
enum Piece {
    Same(Box<[u8]>),
    Delta,
    Counter,
    Space,
}

impl Template {
    /// A template for events like the one of this shape.
    pub(super) fn new(shape: &Shape) -> Self {
        Template::build(&shape.form, shape.spaces.clone(), Vec::new())
    }

    /// Learns that an event with this whitespace has the same form.
    pub(super) fn learn(&mut self, shape: &Shape) {
        let differ = |ours: &[Space], theirs: &[Space]| -> Vec<usize> {
            let of = |space: &Space| theirs.binary_search_by_key(&space.before, |their| their.before);
            // No two stand before the same byte.
            let same = |space: &Space| of(space).is_ok_and(|at| theirs[at] == *space);
            ours.iter().filter(|space| !same(space)).map(|space| space.before).collect()
        };
        let mut loose = std::mem::take(&mut self.loose);
        loose.extend(differ(&self.spaces, &shape.spaces));
        loose.extend(differ(&shape.spaces, &self.spaces));
        loose.sort_unstable();
        loose.dedup();
        *self = Template::build(&shape.form, shape.spaces.clone(), loose);
    }

    fn build(form: &[u8], spaces: Vec<Space>, loose: Vec<usize>) -> Self {
        let (mut pieces, mut same) = (Vec::new(), Vec::new());
        let mut next = spaces.iter().peekable();
        for at in 0..=form.len() {
            let space = next.next_if(|space| space.before == at);
            // Whitespace of some length is padding, and padding varies.
            if space.is_some_and(|space| space.len > 1) || loose.binary_search(&at).is_ok() {
                end(&mut same, &mut pieces);
                pieces.push(Piece::Space);
            } else if let Some(space) = space {
                same.push(space.byte);
            }
            match form.get(at) {
                Some(&DELTA) => {
                    end(&mut same, &mut pieces);
                    pieces.push(Piece::Delta);
                }
                Some(&COUNTER) => {
                    end(&mut same, &mut pieces);
                    pieces.push(Piece::Counter);
                }
                Some(byte) => same.push(*byte),
                None => end(&mut same, &mut pieces),
            }
        }
        Template { pieces, spaces, loose }
    }

    /// Whether the event is surely of this shape; then `texts` are its delta texts, in order.
    pub(super) fn fits(&self, data: &str, texts: &mut Vec<Range<usize>>) -> bool {
        texts.clear();
        let bytes = data.as_bytes();
        let mut at = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Same(same) => {
                    if !bytes[at..].starts_with(same) {
                        return false;
                    }
                    at += same.len();
                }
                Piece::Delta => {
                    let Some(end) = string_end(bytes, at) else { return false };
                    texts.push(at..end);
                    at = end;
                }
                Piece::Counter => {
                    let Some(end) = value_end(bytes, at) else { return false };
                    at = end;
                }
                Piece::Space => at += bytes[at..].iter().take_while(|byte| is_space(**byte)).count(),
            }
        }
        at == bytes.len()
    }
}

fn end(same: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    if !same.is_empty() {
        pieces.push(Piece::Same(std::mem::take(same).into()));
    }
}
