//! The kinds of values that only routes have. Like `value`, nothing here knows which option it reads for.

use super::kinds::PathPrefix;
use super::presets;
use super::route::{Condition, RoutePattern, json_pointer};
use super::route_settings::{Ids, Keepalive, OnDisconnect, Repeats};
use super::session_rule::SessionRule;
use super::value::{Choice, Given, Kind, Span, quoted};

impl Choice for Ids {
    const FORM: &'static str = "auto|on|off";
    const NAMES: &'static [(&'static str, Self)] = &[("auto", Ids::Auto), ("on", Ids::On), ("off", Ids::Off)];
}

impl Choice for OnDisconnect {
    const FORM: &'static str = "continue|cancel";
    const NAMES: &'static [(&'static str, Self)] =
        &[("continue", OnDisconnect::Continue), ("cancel", OnDisconnect::Cancel)];
}

impl Choice for Repeats {
    const FORM: &'static str = "join|forward";
    const NAMES: &'static [(&'static str, Self)] = &[("join", Repeats::Join), ("forward", Repeats::Forward)];
}

/// `auto`, `off`, or a time.
pub(super) struct KeepaliveEvery;

impl Kind for KeepaliveEvery {
    type Value = Keepalive;
    const FORM: &'static str = "auto|off|DURATION";

    fn read(given: &Given) -> Result<Keepalive, String> {
        match given {
            Given::Text(text) if text == "auto" => Ok(Keepalive::Auto),
            Given::Text(text) if text == "off" => Ok(Keepalive::Off),
            other => Span::read(other).map(Keepalive::Every).map_err(|error| format!("{error}; or `auto`, or `off`")),
        }
    }

    fn show(value: &Keepalive) -> String {
        match value {
            Keepalive::Auto => quoted("auto"),
            Keepalive::Off => quoted("off"),
            Keepalive::Every(time) => Span::show(time),
        }
    }
}

/// The name of a preset.
pub(super) struct PresetName;

impl Kind for PresetName {
    type Value = String;
    const FORM: &'static str = "NAME";

    fn read(given: &Given) -> Result<String, String> {
        let name = given.text("the name of a preset")?;
        if presets::preset(name, None).is_some() {
            return Ok(name.into());
        }
        let known: Vec<_> = presets::presets().map(|(name, _)| name).collect();
        Err(format!("there is no preset `{name}`; this version has {}", known.join(", ")))
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// Where a preset's family stands: a path prefix, or `/`.
pub(super) struct Base;

impl Kind for Base {
    type Value = String;
    const FORM: &'static str = "PATH";

    fn read(given: &Given) -> Result<String, String> {
        match given {
            Given::Text(text) if text == "/" => Ok("/".into()),
            other => PathPrefix::read(other).map_err(|error| format!("{error}; or `/`")),
        }
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// `header:NAME=VALUE`.
pub(super) struct When;

impl Kind for When {
    type Value = Condition;
    const FORM: &'static str = "header:NAME=VALUE";

    fn read(given: &Given) -> Result<Condition, String> {
        Condition::parse(given.text("a condition")?)
    }

    fn show(value: &Condition) -> String {
        quoted(value)
    }
}

/// The name of a dialect. Whether there is one is checked when all are known.
pub(super) struct DialectName;

impl Kind for DialectName {
    type Value = String;
    const FORM: &'static str = "NAME";

    fn read(given: &Given) -> Result<String, String> {
        given.text("the name of a dialect").map(str::to_owned)
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// `METHOD /path`.
pub(super) struct Pattern;

impl Kind for Pattern {
    type Value = RoutePattern;
    const FORM: &'static str = "ROUTE";

    fn read(given: &Given) -> Result<RoutePattern, String> {
        RoutePattern::parse(given.text("a route, `METHOD /path`")?)
    }

    fn show(value: &RoutePattern) -> String {
        quoted(value)
    }
}

/// Where a session's name is found.
pub(super) struct Rule;

impl Kind for Rule {
    type Value = SessionRule;
    const FORM: &'static str = "RULE";

    fn read(given: &Given) -> Result<SessionRule, String> {
        SessionRule::parse(given.text("a session rule")?)
    }

    fn show(value: &SessionRule) -> String {
        quoted(value)
    }
}

/// `json:/pointer` into the request body.
pub(super) struct BodyPointer;

impl Kind for BodyPointer {
    type Value = String;
    const FORM: &'static str = "json:/pointer";

    fn read(given: &Given) -> Result<String, String> {
        let text = given.text("`json:/pointer`")?;
        match text.strip_prefix("json:") {
            Some(pointer) => json_pointer(pointer),
            None => {
                Err(format!("`{text}`: write `json:/pointer`, the place of the user's message in the request body"))
            }
        }
    }

    fn show(value: &String) -> String {
        quoted(format!("json:{value}"))
    }
}
