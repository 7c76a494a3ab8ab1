//! The texts that an event adds to its run.

use serde_json::Value;

use super::{Delta, Dialect, Mark, Path, TextKind, Texts};

/// A piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// What it is a part of.
    pub kind: TextKind,
    /// The piece.
    pub text: String,
}

impl Dialect {
    /// The pieces of text that an event of this name and data adds, in their order.
    pub fn texts(&self, name: Option<&str>, data: &str) -> Vec<Text> {
        let Ok(json) = serde_json::from_str(data) else { return Vec::new() };
        self.deltas.iter().flat_map(|delta| delta.texts(name, data, &json)).collect()
    }
}

impl Delta {
    fn texts(&self, name: Option<&str>, data: &str, json: &Value) -> Vec<Text> {
        let named = |mark: &Mark| {
            mark.event.as_ref().is_none_or(|names| names.are(name.unwrap_or("message")))
                && mark.data.as_ref().is_none_or(|wanted| wanted == data)
        };
        let shown = |mark: &Mark, at: &[usize]| named(mark) && mark.shows(json, &self.text, at);
        let found = self.text.find(json, &[]).into_iter();
        let counts = |at: &[usize]| {
            self.when.as_ref().is_none_or(|when| shown(when, at))
                && !self.unless.as_ref().is_some_and(|unless| shown(unless, at))
        };
        found
            .filter_map(|(at, text)| Some((at, text.as_str()?)))
            .filter(|(at, _)| counts(at))
            .map(|(_, text)| Text { kind: self.kind, text: text.to_owned() })
            .collect()
    }
}

impl Mark {
    /// Whether the JSON shows it, seen from one text at `path` whose `*` stand for the elements `at`.
    fn shows(&self, json: &Value, path: &Path, at: &[usize]) -> bool {
        let there = |place: &Path| -> Vec<&Value> {
            let found = place.find(json, &at[..place.shared(path).min(at.len())]).into_iter();
            found.map(|(_, value)| value).filter(|value| !value.is_null()).collect()
        };
        let has = |place: &Path, texts: Option<&Texts>| {
            there(place).into_iter().any(|value| texts.is_none_or(|texts| are(texts, value)))
        };
        self.at.as_ref().is_none_or(|place| has(place, self.is.as_ref()))
            && self.with.iter().all(|(place, texts)| has(place, Some(texts)))
            && self.without.iter().all(|place| there(place).is_empty())
    }
}

/// Whether a value that is not null is one of `texts`.
fn are(texts: &Texts, value: &Value) -> bool {
    match value {
        _ if texts.are_anything() => true,
        Value::String(text) => texts.are(text),
        Value::Object(_) | Value::Array(_) => false,
        scalar => texts.are(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_a_delta_speak_of_the_element_that_its_text_stands_in() {
        let dialect = Dialect::read(
            r#"
            name = "own"
            [[delta]]
            text = "/parts/*/text"
            unless = { at = "/parts/*/thought", is = "true" }
            [[delta]]
            text = "/parts/*/text"
            when = { at = "/parts/*/thought", is = "true" }
            kind = "reasoning"
            "#,
        )
        .unwrap();
        let data = r#"{"parts":[{"text":"a"},{"text":"b","thought":true},{"text":7},{"text":"c"}]}"#;
        let texts: Vec<_> = dialect.texts(None, data).into_iter().map(|text| (text.kind, text.text)).collect();
        let text = |kind, text: &str| (kind, text.to_owned());
        let expected = [text(TextKind::Answer, "a"), text(TextKind::Answer, "c"), text(TextKind::Reasoning, "b")];
        assert_eq!(texts, expected);
    }
}
