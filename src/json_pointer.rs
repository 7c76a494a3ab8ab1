//! Finds one value in a JSON text by its pointer (RFC 6901) without building the text as values:
//! a body of 16 MiB costs no memory beyond itself.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The value that `pointer` names in `json`, as it is written there. `None`: there is none, or the
/// text is not JSON, or the pointer is not a pointer. Of repeated members the last one counts, as
/// in the parsers of most backends.
pub(crate) fn find<'j>(json: &'j [u8], pointer: &str) -> Option<&'j RawValue> {
    let keys = keys(pointer)?;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = At { keys: &keys }.deserialize(&mut deserializer).ok()?;
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

impl<'j> DeserializeSeed<'j> for At<'_> {
    type Value = Option<&'j RawValue>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.keys.is_empty() {
            return <&RawValue as serde::Deserialize>::deserialize(deserializer).map(Some);
        }
        deserializer.deserialize_any(self)
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
