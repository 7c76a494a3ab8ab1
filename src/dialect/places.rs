//! Finds what stands at many places of a JSON text in one reading, without building the text as values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Path;
use super::path::{Step, number};

/// Places that are looked at together.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    known: Vec<Path>,
    root: Node,
}

/// What is known below one step of a path.
#[derive(Clone, Debug, Default)]
struct Node {
    /// The place that ends here.
    here: Option<usize>,
    keys: Vec<(Box<str>, Node)>,
    every: Option<Box<Node>>,
}

/// What stands at the places of one text, except null, as it is written there.
#[derive(Debug, Default)]
pub(super) struct Found<'j>(Vec<(usize, &'j str)>);

impl Places {
    /// Looks at `path`, too. Its number here.
    pub(super) fn add(&mut self, path: &Path) -> usize {
        if let Some(known) = self.known.iter().position(|known| known == path) {
            return known;
        }
        let mut node = &mut self.root;
        for step in path.steps() {
            node = match step {
                Step::Every => node.every.get_or_insert_default(),
                Step::Key(key) => {
                    let at = node.keys.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
                        node.keys.push((key.clone(), Node::default()));
                        node.keys.len() - 1
                    });
                    &mut node.keys[at].1
                }
            };
        }
        node.here = Some(self.known.len());
        self.known.push(path.clone());
        self.known.len() - 1
    }

    /// What `json` has; of what is no JSON, nothing.
    pub(super) fn find<'j>(&self, json: &'j str) -> Found<'j> {
        let mut found = Vec::new();
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let read = In { node: &self.root, found: &mut found }.deserialize(&mut deserializer);
        match read.and_then(|()| deserializer.end()) {
            Ok(()) => Found(found),
            Err(_) => Found::default(),
        }
    }
}

impl<'j> Found<'j> {
    /// What stands at the place of this number.
    pub(super) fn at(&self, place: usize) -> impl Iterator<Item = &'j str> {
        self.0.iter().filter(move |(at, _)| *at == place).map(|(_, json)| *json)
    }
}

/// Reads one value.
struct In<'n, 'f, 'j> {
    node: &'n Node,
    found: &'f mut Vec<(usize, &'j str)>,
}

impl<'j> DeserializeSeed<'j> for In<'_, '_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(here) = self.node.here else { return deserializer.deserialize_any(self) };
        let value = <&RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
        if value != "null" {
            self.found.push((here, value));
        }
        if (self.node.keys.is_empty() && self.node.every.is_none()) || !value.starts_with(['{', '[']) {
            return Ok(());
        }
        // It was read as a whole: what is wanted of its inside is read once more.
        serde_json::Deserializer::from_str(value).deserialize_any(self).map_err(D::Error::custom)
    }
}

impl<'j> Visitor<'j> for In<'_, '_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'j, str>>()? {
            match self.node.keys.iter().find(|(known, _)| **known == *key) {
                Some((_, node)) => map.next_value_seed(In { node, found: self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<(), A::Error> {
        for i in 0.. {
            let numbered = self.node.keys.iter().find(|(key, _)| number(key) == Some(i)).map(|(_, node)| node);
            let more = match (&self.node.every, numbered) {
                (Some(every), None) => seq.next_element_seed(In { node: every, found: self.found })?.is_some(),
                (None, Some(node)) => seq.next_element_seed(In { node, found: self.found })?.is_some(),
                (None, None) => seq.next_element::<IgnoredAny>()?.is_some(),
                (Some(every), Some(node)) => match seq.next_element::<&'j RawValue>()? {
                    None => false,
                    Some(value) => {
                        for node in [every, node] {
                            let mut deserializer = serde_json::Deserializer::from_str(value.get());
                            In { node, found: self.found }.deserialize(&mut deserializer).map_err(A::Error::custom)?;
                        }
                        true
                    }
                },
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn found(json: &str, paths: &[&str]) -> Vec<Vec<String>> {
        let mut places = Places::default();
        let numbers: Vec<_> = paths.iter().map(|path| places.add(&Path::parse(path).unwrap())).collect();
        let found = places.find(json);
        numbers.iter().map(|place| found.at(*place).map(str::to_owned).collect()).collect()
    }

    #[test]
    fn many_places_are_found_in_one_reading() {
        let json = r#" {"a": {"b": [1, {"c": "x"}, null]}, "d": null, "e": "t"} "#;
        let paths = ["/a/b/*", "/a/b/1/c", "/a/b/*/c", "/a", "/d", "/e", "/f", "/e/f"];
        let expected: [&[&str]; 8] = [
            &["1", r#"{"c": "x"}"#],
            &["\"x\""],
            &["\"x\""],
            &[r#"{"b": [1, {"c": "x"}, null]}"#],
            &[],
            &["\"t\""],
            &[],
            &[],
        ];
        assert_eq!(found(json, &paths), expected);
        assert_eq!(found("\"text\"", &["", "/a"]), [vec!["\"text\"".to_owned()], vec![]]);
        // Half of a character is no text to serde, and JSON all the same.
        let half = r#"{"e":"\ud83d"}"#;
        assert_eq!(found(half, &["/e", "/e/f"]), [vec![r#""\ud83d""#.to_owned()], vec![]]);
    }

    #[test]
    fn what_is_no_json_has_nothing_and_deep_nesting_does_not_overflow_the_stack() {
        let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        for json in ["", "[DONE]", r#"{"a":1"#, r#"{"a":1} x"#] {
            assert!(found(json, &["/a", "/*/*"]).iter().all(Vec::is_empty));
        }
        assert_eq!(found(&deep, &["/a", "/*/*"]).iter().map(Vec::len).collect::<Vec<_>>(), [0, 1]);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..9).prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab0]", inner, 0..3).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn one_reading_finds_what_each_path_finds_by_itself(
            json in json(),
            paths in prop::collection::vec("(/(a|b|0|1|\\*)){0,3}", 1..5),
        ) {
            let text = json.to_string();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            let alone = paths.iter().map(|path| {
                let path = Path::parse(path).unwrap();
                let values = path.find(&json, &[]).into_iter().filter(|(_, value)| !value.is_null());
                values.map(|(_, value)| value.to_string()).collect::<Vec<_>>()
            });
            prop_assert_eq!(found(&text, &paths), alone.collect::<Vec<_>>());
        }
    }
}
