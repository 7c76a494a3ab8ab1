//! What an operator is told of a configuration that is valid and may not do what it seems to say. Every
//! message says what counts. Nothing here refuses anything.

use super::check::public;
use super::problem::{Origin, Problem};
use super::route_settings::{OnDisconnect, Route};
use super::settings::{AuthMode, Config};
use super::store_url::StoreUrl;
use crate::dialect::{Dialects, builtin};

impl Config {
    /// What the operator should be told loudly at start; empty for a careful configuration.
    pub fn warnings(&self) -> Vec<String> {
        let open = self.auth.mode == AuthMode::None && self.allow_open;
        let mut warnings: Vec<String> = public(self)
            .filter(|_| open)
            .map(|(name, address, _)| {
                format!("OPEN: the {name} listener {address} has no authentication (--auth none --allow-open): whoever reaches it may read every session")
            })
            .collect();
        if self.store.url == Some(StoreUrl::Memory) {
            warnings.push("the store is `memory:`: sessions are gone when this process ends".into());
        }
        warnings.extend(self.without_effect.iter().map(Problem::to_string));
        warnings
    }
}

/// A route, and where it was written.
pub(super) type Written = (Origin, Route);

/// What of `routes` is never used. The first `own` of them come from tables, the others from the presets at the top.
pub(super) fn of_routes(routes: &[Written], own: usize, dialects: &Dialects) -> Vec<Problem> {
    let mut found = Vec::new();
    for written in routes {
        let messages = [grace(written), second_dialect(written, dialects)];
        found.extend(messages.into_iter().flatten());
    }
    found.extend(unreachable(routes, own));
    // What stands beside a preset is said once for its family.
    let mut said: Vec<Problem> = Vec::new();
    for problem in found {
        if !said.contains(&problem) {
            said.push(problem);
        }
    }
    said
}

/// A dialect that is known by the name of a built-in one.
pub(super) fn replaces_builtin(origin: &Origin, name: &str) -> Option<Problem> {
    builtin().any(|(known, ..)| known == name).then(|| {
        let message = format!(
            "[[dialect]] `{name}` takes the place of the built-in one of this name, in presets as well; give it another name if that is not wanted"
        );
        Problem::at(origin, message)
    })
}

fn grace((origin, route): &Written) -> Option<Problem> {
    let unused = !route.grace.is_zero() && route.on_disconnect != OnDisconnect::Cancel;
    unused.then(|| {
        Problem::at(
            origin,
            "[[route]] `grace` means something only with `on_disconnect = \"cancel\"`: add that, or remove it",
        )
    })
}

/// Of dialects of one framing the first counts.
fn second_dialect((origin, route): &Written, dialects: &Dialects) -> Option<Problem> {
    let named: Vec<_> = route.dialect.iter().filter_map(|name| dialects.named(name)).collect();
    let (first, second) = named.iter().enumerate().find_map(|(i, second)| {
        let first = named[..i].iter().find(|first| first.framing == second.framing)?;
        Some((first, second))
    })?;
    let message = format!(
        "[[route]] `dialect`: no answer is taken for `{}`, for `{}` stands before it and is framed alike; keep one, or leave `dialect` out: then each answer shows it",
        second.name, first.name
    );
    Some(Problem::at(origin, message))
}

/// Routes that are never reached, of one origin and preset.
struct Hidden<'a> {
    origin: &'a Origin,
    preset: Option<&'a str>,
    patterns: Vec<String>,
    /// What stands before them.
    by: String,
}

/// Routes whose requests an earlier one has all. `own` come from tables: one of these with the very pattern of a
/// preset's that is listed at the top of the file is how a preset is changed.
fn unreachable(routes: &[Written], own: usize) -> Vec<Problem> {
    let mut hidden: Vec<Hidden<'_>> = Vec::new();
    for (i, (origin, route)) in routes.iter().enumerate() {
        let hides = |(at, (_, earlier)): &(usize, &Written)| {
            let meant = *at < own && i >= own && earlier.pattern == route.pattern;
            let has_all = earlier.when.is_none() || earlier.when == route.when;
            !meant && has_all && earlier.pattern.covers(&route.pattern)
        };
        let Some((_, (_, earlier))) = routes[..i].iter().enumerate().find(hides) else { continue };
        let by = match &earlier.preset {
            Some(preset) => format!("the preset `{preset}`"),
            None => format!("`{}`", earlier.pattern),
        };
        let (preset, pattern) = (route.preset.as_deref(), format!("`{}`", route.pattern));
        let family = hidden.iter_mut().find(|it| it.origin == origin && it.preset == preset && it.by == by);
        match family.filter(|_| preset.is_some()) {
            Some(family) => family.patterns.push(pattern),
            None => hidden.push(Hidden { origin, preset, patterns: vec![pattern], by }),
        }
    }
    hidden.iter().map(Hidden::problem).collect()
}

impl Hidden<'_> {
    fn problem(&self) -> Problem {
        let Hidden { origin, preset, patterns, by } = self;
        let of = preset.map(|preset| format!(" of the preset `{preset}`")).unwrap_or_default();
        let message = format!(
            "[[route]] {}{of} never gets a request: {by} stands before it and has them all; change the order, or remove one",
            patterns.join(", ")
        );
        Problem::at(origin, message)
    }
}
