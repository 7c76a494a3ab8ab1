//! Finds one value in a JSON text by its pointer (RFC 6901) without building the text as values:
//! a body of 16 MiB costs no memory beyond itself.
//!
//! Beyond the RFC, which has no word for it, `-1` is the last element of an array, and `-1?name=value` is
//! the last element if that is an object in which `name` is this text. Where a text stands in place of the
//! array, both are the text itself, however the pointer goes on: several formats let a list of one text be
//! written so.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The value that `pointer` names in `json`, as it is written there. `None`: there is none, or the
/// text is not JSON, or the pointer is not a pointer. Of repeated members the last one counts, as
/// in the parsers of most backends.
pub(crate) fn find<'j>(json: &'j [u8], pointer: &str) -> Option<&'j RawValue> {
    find_in(json, &keys(pointer)?)
}

fn find_in<'j>(json: &'j [u8], keys: &[Cow<'_, str>]) -> Option<&'j RawValue> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = At { keys }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    found
}

/// The unescaped reference tokens.
fn keys(pointer: &str) -> Option<Vec<Cow<'_, str>>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let tokens = pointer.strip_prefix('/')?.split('/');
    Some(
        tokens
            .map(|t| if t.contains('~') { t.replace("~1", "/").replace("~0", "~").into() } else { t.into() })
            .collect(),
    )
}

/// What is left of the way to the value.
struct At<'k> {
    keys: &'k [Cow<'k, str>],
}

/// The token `-1`, with what is asked of the element.
struct Last<'k> {
    has: Option<(&'k str, &'k str)>,
}

impl<'k> Last<'k> {
    fn of(key: &'k str) -> Option<Self> {
        match key.strip_prefix("-1")? {
            "" => Some(Last { has: None }),
            rest => rest.strip_prefix('?')?.split_once('=').map(|has| Last { has: Some(has) }),
        }
    }

    /// What stands at `keys`, the first of which is this token, in `raw`.
    fn of_value<'j>(&self, raw: &'j RawValue, keys: &[Cow<'_, str>]) -> Option<&'j RawValue> {
        match raw.get().as_bytes().first()? {
            b'"' => Some(raw),
            b'[' => {
                let last = serde_json::from_str::<LastElement<'j>>(raw.get()).ok()?.0?;
                let has = |(name, value): (&str, &str)| {
                    let found = find_in(last.get().as_bytes(), &[name.into()]);
                    found.is_some_and(|found| serde_json::from_str::<&str>(found.get()).is_ok_and(|text| text == value))
                };
                self.has.is_none_or(has).then(|| find_in(last.get().as_bytes(), &keys[1..]))?
            }
            _ => None,
        }
    }
}

/// The last element of an array.
struct LastElement<'j>(Option<&'j RawValue>);

impl<'j> serde::Deserialize<'j> for LastElement<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(LastElement(None))
    }
}

impl<'j> Visitor<'j> for LastElement<'j> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'j>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        while let Some(element) = seq.next_element()? {
            self.0 = Some(element);
        }
        Ok(self)
    }
}

impl<'j> DeserializeSeed<'j> for At<'_> {
    type Value = Option<&'j RawValue>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let Some(key) = self.keys.first() else {
            return <&RawValue as serde::Deserialize>::deserialize(deserializer).map(Some);
        };
        match Last::of(key) {
            Some(last) => {
                let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
                Ok(last.of_value(raw, self.keys))
            }
            None => deserializer.deserialize_any(self),
        }
    }
}

impl<'j> Visitor<'j> for At<'_> {
    type Value = Option<&'j RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'j, str>>()? {
            if key == self.keys[0] {
                found = map.next_value_seed(At { keys: &self.keys[1..] })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let key = &self.keys[0];
        let canonical = key == "0" || !key.starts_with(['0', '+']);
        let wanted = key.parse::<usize>().ok().filter(|_| canonical);
        let (mut found, mut i) = (None, 0);
        loop {
            if Some(i) == wanted {
                let Some(value) = seq.next_element_seed(At { keys: &self.keys[1..] })? else { break };
                found = value;
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
            i += 1;
        }
        Ok(found)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, pointer: &str) -> Option<String> {
        find(json.as_bytes(), pointer).map(|value| value.get().to_owned())
    }

    #[test]
    fn the_examples_of_rfc_6901_are_found() {
        let json = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        assert_eq!(found(json, "").as_deref(), Some(json));
        for (pointer, value) in [
            ("/foo", r#"["bar","baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(found(json, pointer).as_deref(), Some(value), "{pointer}");
        }
    }

    #[test]
    fn the_last_element_has_a_name() {
        let json = r#"{"m":[{"role":"user","content":"a"},{"role":"user","content":"b"}],"n":[],"t":"text"}"#;
        for (pointer, value) in [
            ("/m/-1/content", Some(r#""b""#)),
            ("/m/-1?role=user/content", Some(r#""b""#)),
            ("/m/-1?role=tool/content", None),
            ("/m/-1?content/content", None),
            ("/n/-1", None),
            ("/t/-1?role=user/content", Some(r#""text""#)),
            ("/m/-2", None),
            ("/m/0/-1", None),
        ] {
            assert_eq!(found(json, pointer).as_deref(), value, "{pointer}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for (json, pointer) in [
            (r#"{"a":[1]}"#, "/b"),
            (r#"{"a":[1]}"#, "/a/1"),
            (r#"{"a":[1]}"#, "/a/00"),
            (r#"{"a":[1]}"#, "/a/+0"),
            (r#"{"a":[1]}"#, "/a/-"),
            (r#"{"a":1}"#, "/a/b"),
            (r#"{"a":"text"}"#, "/a/0"),
            (r#"{"a":null}"#, "/a/b"),
            (r#"{"a":1}"#, "a"),
            (r#"{"a":1} trailing"#, "/a"),
            (r#"{"a":1"#, "/a"),
            ("", "/a"),
        ] {
            assert_eq!(found(json, pointer), None, "{json} {pointer}");
        }
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        assert_eq!(found(r#"{"a":1,"a":{"b":2}}"#, "/a/b").as_deref(), Some("2"));
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        let json = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(found(&json, &"/0".repeat(1_000)), None);
    }
}
