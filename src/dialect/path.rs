//! Where something stands in an event's data.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer};

/// A JSON pointer (RFC 6901) in which a `*` stands for every element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
}

/// One reference token.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The member of this name, or the element of this number.
    Key(Box<str>),
    /// Every element.
    Every,
}

/// What is wrong with a path.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a place in JSON; write `/key/0/key`, `*` for every element of an array (`~1` for a `/` in a key, `~0` for a `~`)"
)]
pub struct PathError(String);

impl Path {
    /// Reads `/choices/*/delta/content`.
    ///
    /// # Errors
    /// It does not begin with `/`, or a `~` is not followed by `0` or `1`.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let steps = text.strip_prefix('/').filter(|_| escaped).ok_or_else(|| PathError(text.to_owned()))?;
        let step = |token: &str| match token {
            "*" => Step::Every,
            key => Step::Key(key.replace("~1", "/").replace("~0", "~").into()),
        };
        Ok(Path { steps: steps.split('/').map(step).collect() })
    }

    /// How many steps it has.
    pub(super) fn depth(&self) -> usize {
        self.steps.len()
    }

    /// Whether its step after `depth` others goes to the member `name` of an object.
    pub(super) fn goes_to(&self, depth: usize, name: &[u8]) -> bool {
        matches!(self.steps.get(depth), Some(Step::Key(key)) if key.as_bytes() == name)
    }

    /// Whether its step after `depth` others goes to this element of an array.
    pub(super) fn goes_to_element(&self, depth: usize, index: usize) -> bool {
        match self.steps.get(depth) {
            Some(Step::Every) => true,
            Some(Step::Key(key)) => key.parse() == Ok(index),
            None => false,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Every => f.write_str("/*"),
        })
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
        for text in ["/a", "/choices/*/delta/content", "/a~1b/m~0n/0"] {
            assert_eq!(Path::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused_with_the_form() {
        for text in ["", "a", "/a~2", "/a~"] {
            assert!(Path::parse(text).unwrap_err().to_string().contains("/key/0/key"), "{text}");
        }
    }
}
