//! The query of our own URLs.

use std::str::FromStr;
use std::time::Duration;

use crate::gateway::attachment::Filter;
use crate::server::Problem;
use crate::session::{After, RunId, SessionId};
use crate::wire::{Code, after_from_query, is_compact, rollup_window};

/// The parameters of a URL, decoded. Unknown names are ignored.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of `uri`.
    pub(super) fn of(uri: &http::Uri) -> Self {
        let raw = uri.query().unwrap_or_default();
        Query(form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    /// The first value of `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A number.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Problem::new(Code::BadRequest, format!("`{name}` is a whole number")))
        };
        self.text(name).map(parse).transpose()
    }

    /// `1`, `true`, `0` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.text(name) {
            None => Ok(None),
            Some("1" | "true" | "") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(_) => Err(Problem::new(Code::BadRequest, format!("`{name}` is 1 or 0"))),
        }
    }

    /// `after`, an offset, `start` or `end`.
    pub(super) fn after(&self) -> Result<Option<After>, Problem> {
        let parse = |text| after_from_query(text).map_err(|message| Problem::new(Code::BadOffset, message));
        self.text("after").map(parse).transpose()
    }

    /// `replay`: whether the history comes merged, where it says so.
    pub(super) fn compact(&self) -> Result<Option<bool>, Problem> {
        let parse = |text| is_compact(text).map_err(|message| Problem::new(Code::BadRequest, message));
        self.text("replay").map(parse).transpose()
    }

    /// `rollup_ms`: over how long live deltas are merged.
    pub(super) fn rollup(&self) -> Result<Duration, Problem> {
        let parse = |text| rollup_window(text).map_err(|message| Problem::new(Code::BadRequest, message));
        self.text("rollup_ms").map_or(Ok(Duration::ZERO), parse)
    }

    /// `session`.
    pub(super) fn session(&self) -> Result<Option<SessionId>, Problem> {
        let parse = |text| {
            SessionId::from_store(text).map_err(|error| Problem::new(Code::BadRequest, format!("`session`: {error}")))
        };
        self.text("session").map(parse).transpose()
    }

    /// `run` and `source`, each of which may be given several times.
    pub(super) fn filter(&self) -> Result<Filter, Problem> {
        let all = |name: &str| -> Vec<&str> {
            self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
        };
        let runs = all("run").into_iter().map(RunId::parse).collect::<Result<Vec<_>, _>>();
        let runs = runs.map_err(|error| Problem::new(Code::BadRequest, format!("`run`: {error}")))?;
        let sources: Vec<_> = all("source").into_iter().map(str::to_owned).collect();
        Ok(Filter { runs: (!runs.is_empty()).then_some(runs), sources: (!sources.is_empty()).then_some(sources) })
    }
}
