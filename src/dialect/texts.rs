//! Texts as marks name them.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// One text or several, any of which will do. A `*` at the end of one stands for any rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts(Vec<Wanted>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    text: Box<str>,
    /// It had a `*`: only the beginning counts.
    beginning: bool,
}

impl Texts {
    /// Whether `text` is one of these.
    pub fn are(&self, text: &str) -> bool {
        self.0.iter().any(|wanted| match wanted.beginning {
            true => text.starts_with(&*wanted.text),
            false => *wanted.text == *text,
        })
    }

    /// Whether anything at all will do.
    pub fn are_anything(&self) -> bool {
        self.0.iter().any(|wanted| wanted.beginning && wanted.text.is_empty())
    }

    /// What must stand in a text for it to be one of these, for each of these.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|wanted| &*wanted.text)
    }

    fn add(&mut self, text: &str) {
        let wanted = match text.strip_suffix('*') {
            Some(beginning) => Wanted { text: beginning.into(), beginning: true },
            None => Wanted { text: text.into(), beginning: false },
        };
        self.0.push(wanted);
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts, such as \"finish\" or [\"finish\", \"abort\"]")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                let mut texts = Texts(Vec::new());
                texts.add(text);
                Ok(texts)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
                let mut texts = Texts(Vec::new());
                while let Some(text) = seq.next_element::<String>()? {
                    texts.add(&text);
                }
                match texts.0.is_empty() {
                    true => Err(Error::invalid_length(0, &self)),
                    false => Ok(texts),
                }
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(json: &str) -> Texts {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn any_of_them_will_do_and_a_star_stands_for_any_rest() {
        let wanted = texts(r#"["done", "response.*"]"#);
        for (text, is) in
            [("done", true), ("done!", false), ("response.", true), ("response.x", true), ("respons", false)]
        {
            assert_eq!(wanted.are(text), is, "{text}");
        }
        assert!(!wanted.are_anything() && texts("\"*\"").are_anything());
    }

    #[test]
    fn no_text_at_all_is_refused() {
        for json in ["[]", "7", "[1]"] {
            assert!(serde_json::from_str::<Texts>(json).is_err(), "{json}");
        }
    }
}
