//! What a description must not say, beside what its form excludes: it would be understood, and mean nothing.

use super::{Dialect, DialectError, Mark};

impl Dialect {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// Its name is none, or one of its marks asks nothing or of nowhere. The text says what to write.
    pub fn check(&self) -> Result<(), DialectError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            let message =
                format!("`name = \"{}\"`: write small letters, digits and `-`, such as `my-agent`", self.name);
            return Err(DialectError(message));
        }
        let lists = [
            ("recognise", &self.recognise),
            ("end", &self.end),
            ("failed", &self.failed),
            ("cancelled", &self.cancelled),
        ];
        let listed = lists.into_iter().flat_map(|(key, marks)| marks.iter().map(move |mark| (key, mark)));
        let whens =
            self.deltas.iter().flat_map(|delta| delta.when.iter().chain(&delta.unless).map(|mark| ("delta", mark)));
        let cumulative = self.cumulative.iter().map(|all| ("cumulative", &all.when));
        let usage = self.usage.when.iter().map(|mark| ("usage", mark));
        for (key, mark) in listed.chain(whens).chain(cumulative).chain(usage) {
            mark.check().map_err(|wrong| DialectError(format!("a mark of `{key}` {wrong}")))?;
        }
        Ok(())
    }
}

impl Mark {
    fn check(&self) -> Result<(), &'static str> {
        let Mark { event, data, at, is, with, without: _ } = self;
        if is.is_some() && at.is_none() {
            return Err("has `is` and no `at`: say where, such as `{ at = \"/type\", is = \"finish\" }`");
        }
        // What is not there is not there in most events.
        let asks = event.is_some() || data.is_some() || at.is_some() || !with.is_empty();
        match asks {
            true => Ok(()),
            false => Err("would be in every event: give it `event`, `data`, `at` or `with`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_mean_nothing_is_refused_with_what_to_write() {
        for (text, words) in [
            ("name = \"\"", "my-agent"),
            ("name = \"My Agent\"", "my-agent"),
            ("name = \"a\"\nend = [{}]", "a mark of `end` would be in every event"),
            ("name = \"a\"\nfailed = [{ is = \"x\" }]", "say where"),
            ("name = \"a\"\n[[delta]]\ntext = \"/t\"\nwhen = {}", "a mark of `delta`"),
            ("name = \"a\"\n[[delta]]\ntext = \"t\"", "/key/0/key"),
            ("name = \"a\"\nerror = \"why\"", "/key/0/key"),
            ("name = \"a\"\nerror = 7", "or a list of paths"),
            ("name = \"a\"\nfinish = []", "unknown field `finish`"),
            ("end = []", "missing field `name`"),
            ("name = \"a\"\nframing = \"xml\"", "json-array"),
            ("name = \"a\"\nend = [{ data = 7 }]", "string"),
        ] {
            let refused = Dialect::read(text).unwrap_err().to_string();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
