//! What an answer is, as far as its head says it.

use std::sync::Arc;

use super::{Dialect, Dialects};
use crate::framing::Framing;

/// A stream's framing, and its dialect where that is known before its events are.
#[derive(Clone, Debug, Default)]
pub struct Format {
    /// How it is cut into events.
    pub framing: Framing,
    /// What they mean; `None`: the first events may show it.
    pub dialect: Option<Arc<Dialect>>,
    /// The dialect that the route names, where the answer cannot be of it: it is framed otherwise.
    pub contradicts: Option<Arc<Dialect>>,
}

impl Dialects {
    /// The format of an answer with these headers; `None`: it is no stream that is recorded. `named` are the
    /// dialects that its route names; of those whose framing the media type is one of, the first counts.
    pub fn format_of<'h>(&self, named: &[String], header: impl Fn(&str) -> Option<&'h str>) -> Option<Format> {
        let content_type = header("content-type")?;
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let fits = |dialect: &&Arc<Dialect>| dialect.framing.is_of(&media_type);
        let shown = |dialect: &&Arc<Dialect>| {
            let has = |(name, value): (&String, &String)| header(name).is_some_and(|shown| shown.starts_with(&**value));
            !dialect.headers.is_empty() && dialect.headers.iter().all(has)
        };
        let named = || named.iter().filter_map(|name| self.named(name));
        let dialect = named().find(fits).or_else(|| self.iter().find(|dialect| fits(dialect) && shown(dialect)));
        let contradicts = named().next().filter(|_| !named().any(|dialect| fits(&dialect))).cloned();
        match dialect {
            Some(dialect) => Some(Format { framing: dialect.framing, dialect: Some(dialect.clone()), contradicts }),
            None => Framing::Sse.is_of(&media_type).then(|| Format { contradicts, ..Format::default() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(dialects: &Dialects, named: Option<&str>, headers: &[(&str, &'static str)]) -> Option<Format> {
        let named: Vec<String> = named.into_iter().map(str::to_owned).collect();
        dialects.format_of(&named, |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    #[test]
    fn an_event_stream_is_recorded_whatever_its_parameters_and_nothing_else_is() {
        let dialects = Dialects::new([]);
        for (content_type, streams) in [
            ("text/event-stream", true),
            ("Text/Event-Stream;charset=UTF-8", true),
            ("application/json", false),
            ("application/x-ndjson", false),
            ("text/plain", false),
        ] {
            let format = format(&dialects, None, &[("content-type", content_type)]);
            assert_eq!(format.is_some_and(|format| format.framing == Framing::Sse), streams, "{content_type}");
        }
    }

    #[test]
    fn a_dialect_of_a_route_counts_where_the_answer_is_of_its_framing() {
        let lines = Dialect::read("name = \"own\"\nframing = \"lines\"").unwrap();
        let dialects = Dialects::new([lines]);
        let named = |content_type| format(&dialects, Some("own"), &[("content-type", content_type)]);
        assert_eq!(named("application/x-ndjson").unwrap().dialect.unwrap().name, "own");
        assert!(named("application/json").is_none());
        let otherwise = named("text/event-stream").unwrap();
        assert!(otherwise.dialect.is_none() && otherwise.contradicts.unwrap().name == "own");
    }

    #[test]
    fn a_header_shows_the_dialect_of_an_answer() {
        let shown = Dialect::read("name = \"own\"\nheaders = { x-own = \"v1\" }\nframing = \"prefixed\"").unwrap();
        let dialects = Dialects::new([shown]);
        let headers = [("content-type", "text/plain; charset=utf-8"), ("x-own", "v1")];
        assert_eq!(format(&dialects, None, &headers).unwrap().framing, Framing::Prefixed);
        assert!(format(&dialects, None, &headers[..1]).is_none());
    }
}
