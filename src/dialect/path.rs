//! Where something stands in an event's data.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A JSON pointer (RFC 6901) in which a `*` stands for every element of an array. The empty one is the data as
/// a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    steps: Vec<Step>,
}

/// One reference token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The member of this name, or the element of this number.
    Key(Box<str>),
    /// Every element.
    Every,
}

/// What is wrong with a path.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a place in JSON; write `/key/0/key` (nothing for all of it), `*` for every element of an array (`~1` for a `/` in a key, `~0` for a `~`)"
)]
pub struct PathError(String);

impl Path {
    /// Reads `/choices/*/delta/content`.
    ///
    /// # Errors
    /// It has text and does not begin with `/`, or a `~` is not followed by `0` or `1`.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Ok(Path { steps: Vec::new() });
        }
        let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let steps = text.strip_prefix('/').filter(|_| escaped).ok_or_else(|| PathError(text.to_owned()))?;
        let step = |token: &str| match token {
            "*" => Step::Every,
            key => Step::Key(key.replace("~1", "/").replace("~0", "~").into()),
        };
        Ok(Path { steps: steps.split('/').map(step).collect() })
    }

    /// Whether its step after `depth` others goes to the member `name` of an object.
    pub(super) fn goes_to(&self, depth: usize, name: &[u8]) -> bool {
        matches!(self.steps.get(depth), Some(Step::Key(key)) if key.as_bytes() == name)
    }

    /// Whether its step after `depth` others goes to this element of an array.
    pub(super) fn goes_to_element(&self, depth: usize, index: usize) -> bool {
        match self.steps.get(depth) {
            Some(Step::Every) => true,
            Some(Step::Key(key)) => number(key) == Some(index),
            None => false,
        }
    }

    /// The reference tokens, from the outermost.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Everything that stands there, in its order; of each where it is: the numbers of the elements that the `*`
    /// stand for. The first `*` stand for the elements `at` alone, as far as that goes.
    pub fn find<'v>(&self, json: &'v Value, at: &[usize]) -> Vec<(Vec<usize>, &'v Value)> {
        let mut found = vec![(Vec::new(), json)];
        for step in &self.steps {
            found = match step {
                Step::Key(key) => {
                    found.into_iter().filter_map(|(numbers, value)| Some((numbers, member(value, key)?))).collect()
                }
                Step::Every => found
                    .into_iter()
                    .flat_map(|(numbers, value)| {
                        let wanted = at.get(numbers.len()).copied();
                        let elements = value.as_array().map(Vec::as_slice).unwrap_or_default().iter().enumerate();
                        elements.filter(move |(i, _)| wanted.is_none_or(|wanted| wanted == *i)).map(
                            move |(i, element)| {
                                let mut numbers = numbers.clone();
                                numbers.push(i);
                                (numbers, element)
                            },
                        )
                    })
                    .collect(),
            };
        }
        found
    }

    /// How many `*` the two have in common at their beginnings.
    pub(super) fn shared(&self, other: &Path) -> usize {
        let same = self.steps.iter().zip(&other.steps).take_while(|(a, b)| a == b);
        same.filter(|(step, _)| **step == Step::Every).count()
    }
}

/// The member of this name, or the element of this number.
fn member<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(key),
        Value::Array(elements) => elements.get(number(key)?),
        _ => None,
    }
}

/// The number of an array's element, as RFC 6901 writes it.
pub(super) fn number(key: &str) -> Option<usize> {
    let canonical = key == "0" || !key.starts_with(['0', '+']);
    key.parse().ok().filter(|_| canonical)
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Every => f.write_str("/*"),
        })
    }
}

/// Reads a list of paths, or a single one in place of a list.
pub(super) fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Path>, D::Error> {
    deserializer.deserialize_any(OneOrSeveral)
}

struct OneOrSeveral;

impl<'de> Visitor<'de> for OneOrSeveral {
    type Value = Vec<Path>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path such as \"/usage/input\", or a list of paths")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Path>, E> {
        Path::parse(text).map(|path| vec![path]).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Path>, A::Error> {
        let mut paths = Vec::new();
        while let Some(path) = list.next_element()? {
            paths.push(path);
        }
        Ok(paths)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Path::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_as_it_is_written() {
        for text in ["", "/a", "/choices/*/delta/content", "/a~1b/m~0n/0"] {
            assert_eq!(Path::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused_with_the_form() {
        for text in ["a", "/a~2", "/a~"] {
            assert!(Path::parse(text).unwrap_err().to_string().contains("/key/0/key"), "{text}");
        }
    }

    #[test]
    fn a_star_finds_every_element_and_may_be_held_to_one() {
        let json: Value = serde_json::from_str(r#"{"a":[{"b":1},{"c":2},{"b":3}],"0":4}"#).unwrap();
        let found = |path: &str, at: &[usize]| -> Vec<String> {
            let path = Path::parse(path).unwrap();
            path.find(&json, at).into_iter().map(|(numbers, value)| format!("{numbers:?} {value}")).collect()
        };
        assert_eq!(found("/a/*/b", &[]), ["[0] 1", "[2] 3"]);
        assert_eq!(found("/a/*/b", &[2]), ["[2] 3"]);
        assert_eq!((found("/a/2/b", &[]), found("/0", &[])), (vec!["[] 3".to_owned()], vec!["[] 4".to_owned()]));
        assert!(found("/a/02/b", &[]).is_empty() && found("/*", &[]).is_empty() && found("/a/*/d", &[]).is_empty());
    }
}
