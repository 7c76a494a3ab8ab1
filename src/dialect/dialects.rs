//! All dialects of a configuration.

use std::sync::Arc;

use super::Dialect;
use super::builtin::BUILTIN;
use crate::framing::Framing;

/// How many events of a run are asked which dialect it is of.
pub const RECOGNISED_WITHIN: u64 = 8;

/// Bytes of an event above which it is not asked: every dialect searches it.
const LARGEST_LOOKED_AT: usize = 1 << 20;

/// The dialects that runs may speak: custom ones before the built-in ones, so that who knows better is asked
/// first. A custom one takes the place of a built-in one of its name.
#[derive(Clone, Debug)]
pub struct Dialects {
    all: Vec<Arc<Dialect>>,
}

/// What is wrong with a description.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DialectError(pub(super) String);

impl Default for Dialects {
    fn default() -> Self {
        Dialects::new([])
    }
}

impl Dialects {
    /// The built-in ones, behind `custom`.
    pub fn new(custom: impl IntoIterator<Item = Dialect>) -> Self {
        let custom = custom.into_iter().map(|dialect| Arc::new(Dialect { custom: true, ..dialect }));
        let mut all: Vec<Arc<Dialect>> = custom.collect();
        for text in BUILTIN {
            let dialect = Dialect::read(text).expect("the built-in dialects are read by a test");
            if !all.iter().any(|known| known.name == dialect.name) {
                all.push(Arc::new(dialect));
            }
        }
        Dialects { all }
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Dialect>> {
        self.all.iter().find(|dialect| dialect.name == name)
    }

    /// The dialect that an event of this name and data shows, of those that are framed as event streams: the
    /// others are known by a route or by the answer's head. Of a run its first [`RECOGNISED_WITHIN`] events are
    /// asked, and the first that shows any dialect counts.
    pub fn recognise(&self, name: Option<&str>, data: &str) -> Option<&Arc<Dialect>> {
        if data.len() > LARGEST_LOOKED_AT {
            return None;
        }
        let mut asked = self.all.iter().filter(|dialect| dialect.framing == Framing::Sse);
        asked.find(|dialect| dialect.watch().recognises(name, data))
    }

    /// All, in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Dialect>> {
        self.all.iter()
    }

    /// Their names, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|dialect| &*dialect.name)
    }
}

impl Dialect {
    /// Reads a description in TOML.
    ///
    /// # Errors
    /// It is not TOML, or has a key or value that means nothing. The text says what and where.
    pub fn read(text: &str) -> Result<Self, DialectError> {
        let dialect: Dialect = toml::from_str(text).map_err(|error| DialectError(error.to_string()))?;
        dialect.check()?;
        Ok(dialect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_dialect_is_read_and_has_a_name_of_its_own() {
        let dialects = Dialects::new([]);
        assert_eq!(dialects.all.len(), BUILTIN.len());
        assert!(dialects.iter().all(|dialect| !dialect.custom));
    }

    #[test]
    fn one_path_may_stand_in_place_of_a_list() {
        let read = |text: &str| Dialect::read(&format!("name = \"own\"\n{text}")).unwrap();
        assert_eq!(read("usage.input = \"/n\"").usage, read("usage.input = [\"/n\"]").usage);
        assert_eq!(read("error = \"/why\"").error, read("error = [\"/why\"]").error);
    }

    #[test]
    fn a_custom_dialect_takes_the_place_of_a_built_in_one() {
        let custom = Dialect::read("name = \"openai-chat\"").unwrap();
        let dialects = Dialects::new([custom]);
        assert!(dialects.named("openai-chat").unwrap().end.is_empty());
        assert_eq!(dialects.all.len(), BUILTIN.len());
    }
}
