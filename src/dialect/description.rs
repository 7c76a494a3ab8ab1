//! The description of one dialect. Its fields are the keys of a `[[dialect]]` table.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use super::path::one_or_several;
use super::watch::Watch;
use super::{Path, Texts};
use crate::framing::Framing;

/// What we know of one wire format.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialect {
    /// Its name: what a route's `dialect` says, and what a run's `started` entry keeps.
    pub name: String,
    /// How its streams are cut into events.
    #[serde(default)]
    pub framing: Framing,
    /// Headers of an answer that say that it is this dialect: names in lower case, and the beginnings of
    /// their values.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// An event among the first ones that shows any of these says that it is this dialect. Empty: it is
    /// never recognised by its events.
    #[serde(default)]
    pub recognise: Vec<Mark>,
    /// Where text grows. Neighbouring events that differ only there (and in `counters`) are one to a reader.
    #[serde(default, rename = "delta")]
    pub deltas: Vec<Delta>,
    /// What may differ between such neighbours without a meaning of its own: of merged events the last
    /// value counts.
    #[serde(default, deserialize_with = "one_or_several")]
    pub counters: Vec<Path>,
    /// Places whose presence (with another value than null) makes an event one that is never merged.
    #[serde(default, deserialize_with = "one_or_several")]
    pub alone: Vec<Path>,
    /// Events of which each holds all that the ones before held: the last is enough.
    #[serde(default)]
    pub cumulative: Vec<Cumulative>,
    /// The stream is complete once an event shows any of these. Empty: the dialect has no end marker.
    #[serde(default)]
    pub end: Vec<Mark>,
    /// The run has failed once an event shows any of these.
    #[serde(default)]
    pub failed: Vec<Mark>,
    /// The upstream itself says that the run was stopped.
    #[serde(default)]
    pub cancelled: Vec<Mark>,
    /// Where a failing event says why.
    #[serde(default, deserialize_with = "one_or_several")]
    pub error: Vec<Path>,
    /// Where the token counts stand.
    #[serde(default)]
    pub usage: Usage,
    /// What viewers of a run that was cancelled are told before the end of their stream. Empty: it breaks off.
    #[serde(default)]
    pub on_cancelled: Vec<Said>,
    /// How the upstream itself is told to stop, beside the closing of its connection.
    #[serde(default)]
    pub cancel: Option<Call>,
    /// How the upstream is given something new to work on while a run is active.
    #[serde(default)]
    pub follow_up: Option<Call>,
    /// What the calls need of the run's events: names, and where their values stand.
    #[serde(default)]
    pub values: BTreeMap<String, Path>,
    /// The same of the body of the run's own request, which must be JSON.
    #[serde(default)]
    pub request: BTreeMap<String, Path>,
    /// Whether it comes from the configuration, and not with us.
    #[serde(skip)]
    pub custom: bool,
    /// What of its events is looked at, once that was asked for.
    #[serde(skip)]
    pub(super) watch: OnceLock<Watch>,
    /// The places that decide whether and how events are merged, once that was asked for.
    #[serde(skip)]
    pub(super) merging: OnceLock<Vec<Path>>,
}

/// Something an event can show. All of what is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The event has this name. Events without one are `message`s.
    #[serde(default)]
    pub event: Option<Texts>,
    /// Its data is exactly this text.
    #[serde(default)]
    pub data: Option<String>,
    /// Its data is JSON and has something here that is neither null nor an empty text.
    #[serde(default)]
    pub at: Option<Path>,
    /// What stands at `at` is this text (or number, or `true`, `false`, as they are written).
    #[serde(default)]
    pub is: Option<Texts>,
    /// The same of other places; `*` is anything but null and an empty text.
    #[serde(default)]
    pub with: BTreeMap<Path, Texts>,
    /// Its data has nothing here, or null.
    #[serde(default, deserialize_with = "one_or_several")]
    pub without: Vec<Path>,
}

/// One place where text grows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// Which events have it; absent: all that have a string at `text`.
    #[serde(default)]
    pub when: Option<Mark>,
    /// Which of those have none. Where `text` and a path of a mark begin alike, their `*` stand for the same
    /// element: so one part of a message is told from another.
    #[serde(default)]
    pub unless: Option<Mark>,
    /// Where the piece of text stands.
    pub text: Path,
    /// What it is a part of.
    #[serde(default)]
    pub kind: TextKind,
}

/// What text is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextKind {
    /// The visible answer.
    #[default]
    Answer,
    /// What the model thinks on its way there.
    Reasoning,
    /// The arguments of a tool call.
    Arguments,
    /// Anything else: a refusal, a summary, code.
    Other,
}

/// Events that repeat everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cumulative {
    /// Which events.
    pub when: Mark,
    /// What must be equal, beside the events' names, for the later one to stand for the earlier one.
    #[serde(default, deserialize_with = "one_or_several")]
    pub same: Vec<Path>,
    /// Where the whole text of the answer stands so far.
    #[serde(default, deserialize_with = "one_or_several")]
    pub text: Vec<Path>,
}

/// Where token counts stand. What one event has at several of the places is added up; the last event that has
/// any counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Which events have them; absent: all that have a number there.
    #[serde(default)]
    pub when: Option<Mark>,
    /// Tokens of what was asked.
    #[serde(default, deserialize_with = "one_or_several")]
    pub input: Vec<Path>,
    /// Tokens of the answer.
    #[serde(default, deserialize_with = "one_or_several")]
    pub output: Vec<Path>,
    /// Every event counts for itself: the counts of all are added up.
    #[serde(default)]
    pub add: bool,
}

/// An event in words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Its name.
    #[serde(default)]
    pub event: Option<String>,
    /// Its data.
    pub data: String,
}

/// A call to the upstream, beside a run's stream. Only runs whose route names the dialect have it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Method and path, `POST responses/{response_id}/cancel`: the path is a reference that is resolved against the
    /// path of the run's own request (RFC 3986 section 5.2), without its query. `{session}` and the names of `values`
    /// and `request` are filled in.
    pub call: String,
    /// Its body, JSON, where it is not what a client sends. A text `"{name}"` in it stands for the value of that
    /// name, whatever its type.
    #[serde(default)]
    pub body: Option<String>,
    /// Fields of the run's own request that go along, beside its credentials.
    #[serde(default)]
    pub headers: Vec<String>,
}
