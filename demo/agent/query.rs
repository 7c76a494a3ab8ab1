//! The options in a request's query.

use std::str::FromStr;

use crate::answer::Refusal;

/// `name=value&…`. Names and values are plain: nothing is percent-decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// The query of a URI.
    pub(crate) fn of(uri: &'a hyper::Uri) -> Self {
        Query(uri.query().unwrap_or_default())
    }

    /// The text of the option, if it is there.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| match pair.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (pair == name).then_some(""),
        })
    }

    /// The value of the option, if it is there; refused where it is not a `T`.
    pub(crate) fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let bad = |text| Refusal::bad_request(format!("`{name}={text}` is not a value of this option"));
        self.text(name).map(|text| text.parse().map_err(|_| bad(text))).transpose()
    }

    /// Whether the option is there, and not 0.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value != "0")
    }
}
