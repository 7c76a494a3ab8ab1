//! A mark as it is looked for in many events: without reading their JSON where the text shows already that the
//! mark cannot be there.

use memchr::memmem::Finder;

use super::path::Step;
use super::places::{Found, Places};
use super::{Mark, Path, Texts};

/// A mark, prepared.
#[derive(Clone, Debug)]
pub(super) struct Sign {
    event: Option<Texts>,
    data: Option<Box<str>>,
    /// One of these is in the text of every event that has it. Empty: nothing is known about the text.
    hints: Vec<Hint>,
    wanted: Vec<(usize, Option<Texts>)>,
    unwanted: Vec<usize>,
}

/// What the text of an event must have.
#[derive(Clone, Debug)]
pub(super) enum Hint {
    /// This.
    Text(Finder<'static>),
    /// A member of this name (in its quotes) with another value than null.
    Member(Finder<'static>),
}

impl Sign {
    /// Prepares `mark`, whose places are to be among `places`.
    pub(super) fn new(mark: &Mark, places: &mut Places) -> Self {
        let at = mark.at.iter().map(|at| (at, mark.is.clone()));
        let with = mark.with.iter().map(|(at, is)| (at, Some(is.clone())));
        let wanted: Vec<(&Path, Option<Texts>)> =
            at.chain(with).map(|(at, is)| (at, is.filter(|is| !is.are_anything()))).collect();
        let hints = wanted.iter().map(|(at, is)| hints(at, is.as_ref())).find(|hints| !hints.is_empty());
        Sign {
            event: mark.event.clone(),
            data: mark.data.as_deref().map(Into::into),
            hints: hints.unwrap_or_default(),
            wanted: wanted.into_iter().map(|(at, is)| (places.add(at), is)).collect(),
            unwanted: mark.without.iter().map(|at| places.add(at)).collect(),
        }
    }

    /// Whether an event may have it, as far as its name and its text show.
    pub(super) fn may_be_in(&self, name: Option<&str>, data: &str) -> bool {
        self.event.as_ref().is_none_or(|names| names.are(name.unwrap_or("message")))
            && self.data.as_ref().is_none_or(|wanted| **wanted == *data)
            && (self.hints.is_empty() || self.hints.iter().any(|hint| hint.is_in(data)))
    }

    /// Whether an event that may have it has it.
    pub(super) fn is_in(&self, found: &Found<'_>) -> bool {
        let is = |place: usize, texts: &Option<Texts>| {
            // An empty text says as little as null: there are servers that write one where others write null.
            found.at(place).any(|json| texts.as_ref().map_or(json != "\"\"", |texts| are(texts, json)))
        };
        self.wanted.iter().all(|(place, texts)| is(*place, texts))
            && self.unwanted.iter().all(|place| found.at(*place).next().is_none())
    }

    /// Whether its JSON matters.
    pub(super) fn reads_json(&self) -> bool {
        !self.wanted.is_empty() || !self.unwanted.is_empty()
    }
}

impl Hint {
    /// The member that `path` ends with.
    pub(super) fn member(path: &Path) -> Option<Self> {
        let last = path.steps().iter().rev().find_map(|step| match step {
            Step::Key(key) if key.parse::<usize>().is_err() => Some(key),
            _ => None,
        });
        let key = last.filter(|key| is_plain(key))?;
        Some(Hint::Member(Finder::new(&format!("\"{key}\"")).into_owned()))
    }

    /// What is searched for.
    pub(super) fn needle(&self) -> &[u8] {
        match self {
            Hint::Text(finder) | Hint::Member(finder) => finder.needle(),
        }
    }

    /// Whether it is there.
    pub(super) fn is_in(&self, data: &str) -> bool {
        match self {
            Hint::Text(text) => text.find(data.as_bytes()).is_some(),
            Hint::Member(name) => name.find_iter(data.as_bytes()).any(|at| {
                let behind = data[at + name.needle().len()..].trim_ascii_start();
                // A text that is equal to the name has no colon behind it.
                behind.strip_prefix(':').is_some_and(|value| !value.trim_ascii_start().starts_with("null"))
            }),
        }
    }
}

/// What the text of an event must have that has one of `texts` at `path`.
fn hints(path: &Path, texts: Option<&Texts>) -> Vec<Hint> {
    let literal = |text: &str| {
        // Short ones stand everywhere.
        let plain = text.len() > 2 && is_plain(text) && !matches!(text, "true" | "false");
        plain.then(|| Hint::Text(Finder::new(text).into_owned()))
    };
    let texts: Option<Vec<Hint>> = texts.and_then(|texts| texts.literals().map(literal).collect());
    texts.unwrap_or_else(|| Hint::member(path).into_iter().collect())
}

/// Whether JSON writes it as it is: nobody escapes any of it.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-. :$".contains(&byte))
}

/// Whether what stands there, as it is written, is one of `texts`.
pub(super) fn are(texts: &Texts, json: &str) -> bool {
    match json.as_bytes() {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => texts.are(&json[1..json.len() - 1]),
        [b'"', ..] => serde_json::from_str::<String>(json).is_ok_and(|text| texts.are(&text)),
        [b'{' | b'[', ..] => false,
        _ => texts.are(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(mark: &str, name: Option<&str>, data: &str) -> bool {
        let mark: Mark = toml::from_str(mark).unwrap();
        let mut places = Places::default();
        let sign = Sign::new(&mark, &mut places);
        sign.may_be_in(name, data) && sign.is_in(&places.find(data))
    }

    #[test]
    fn all_that_a_mark_names_must_hold() {
        for (mark, name, data, is) in [
            (r#"event = "error""#, Some("error"), "", true),
            (r#"event = "error""#, None, "", false),
            (r#"event = "message""#, None, "x", true),
            (r#"event = ["a", "values|*"]"#, Some("values|ns"), "x", true),
            (r#"data = "[DONE]""#, None, "[DONE]", true),
            (r#"data = "[DONE]""#, None, "[DONE] ", false),
            (r#"at = "/a""#, None, r#"{"a": 1}"#, true),
            (r#"at = "/a""#, None, r#"{"a" : null}"#, false),
            (r#"at = "/a""#, None, r#"{"b": "a"}"#, false),
            (r#"at = "/a""#, None, r#"{"a": ""}"#, false),
            (r#"at = "/a""#, None, r#"{"a": false}"#, true),
            (r#"at = "/a/*/b""#, None, r#"{"a": [{"b": null}, {"b": 2}]}"#, true),
            (
                r#"at = "/type"
                is = "finish""#,
                None,
                r#"{"type":"finish"}"#,
                true,
            ),
            (
                r#"at = "/type"
                is = "finish""#,
                None,
                r#"{"type":"text","text":"finish"}"#,
                false,
            ),
            (
                r#"at = "/type"
                is = "fini*""#,
                None,
                r#"{"type":"fin\u0069sh"}"#,
                false,
            ),
            (
                r#"at = "/done"
                is = "true""#,
                None,
                r#"{"done": true}"#,
                true,
            ),
            (
                r#"at = "/n"
                is = "7""#,
                None,
                r#"{"n":7}"#,
                true,
            ),
            (
                r#"at = "/n"
                is = "{}""#,
                None,
                r#"{"n":{}}"#,
                false,
            ),
            (
                r#"at = "/a"
                with = { "/b" = "*" }"#,
                None,
                r#"{"a":1}"#,
                false,
            ),
            (
                r#"at = "/a"
                with = { "/b" = ["x", "y"] }"#,
                None,
                r#"{"a":1,"b":"y"}"#,
                true,
            ),
            (
                r#"at = "/a"
                without = ["/b/0"]"#,
                None,
                r#"{"a":1,"b":[]}"#,
                true,
            ),
            (
                r#"at = "/a"
                without = ["/b/0"]"#,
                None,
                r#"{"a":1,"b":[2]}"#,
                false,
            ),
            (
                r#"at = "/u"
                is = "a/b""#,
                None,
                r#"{"u":"a\/b"}"#,
                true,
            ),
            (r#"at = """#, None, "\"text\"", true),
        ] {
            assert_eq!(shows(mark, name, data), is, "{mark}: {name:?} {data}");
        }
    }

    /// Every chunk of a chat has `"finish_reason":null`: to read its JSON for that would be to read all.
    #[test]
    fn a_member_that_is_null_is_not_looked_into() {
        let hint = Hint::member(&Path::parse("/choices/*/finish_reason").unwrap()).unwrap();
        assert!(!hint.is_in(r#"{"finish_reason": null, "x": "finish_reason"}"#));
        assert!(hint.is_in(r#"{"finish_reason":null,"b":{"finish_reason" : "stop"}}"#));
    }
}
