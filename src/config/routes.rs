//! Which route a request takes, and whether its streams are recorded.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::calls::{CallTemplate, SteerPolicy};
use super::route::{Condition, path_segment};
use super::route_settings::Route;
use super::session_rule::SessionRule;
use super::settings::{Config, Intercept};
use crate::dialect::{Dialect, Dialects, Format};

/// The routes of a configuration. The first that matches wins.
#[derive(Clone, Debug)]
pub struct Routes {
    intercept: Intercept,
    named: Vec<Arc<Route>>,
    unnamed: Arc<Route>,
    dialects: Arc<Dialects>,
}

/// What the answers of one route may be.
#[derive(Clone, Debug)]
pub struct Answers {
    named: Vec<String>,
    dialects: Arc<Dialects>,
}

/// A request for the active run of a session, which its path names.
#[derive(Clone, Debug)]
pub struct Resume<'r, 'p> {
    /// The session's name as it stands in the path, still percent-encoded.
    pub value: &'p str,
    /// The routes whose runs are meant; never empty.
    pub family: Vec<&'r Arc<Route>>,
}

/// Why a request's stream is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptOut {
    /// Streams of its method are recorded only where a route says so.
    Method,
    /// The top of the configuration says so.
    Intercept,
    /// Its route says so.
    Route,
}

impl Routes {
    /// The routes of `config`.
    pub fn new(config: &Config) -> Self {
        Routes {
            intercept: config.intercept.clone(),
            named: config.routes.iter().cloned().map(Arc::new).collect(),
            unnamed: Arc::new(Route::unnamed()),
            dialects: Arc::new(config.dialects.clone()),
        }
    }

    /// What a `steer` of a run of `route` does.
    pub fn steering(&self, route: &Route) -> SteerPolicy {
        let follow_up = || self.answers(route).calls().and_then(|dialect| dialect.follow_up.clone());
        match &route.steer {
            Some(policy) => policy.clone(),
            // What it is resolved against is known to the run alone.
            None => follow_up()
                .and_then(|call| CallTemplate::reference(&call.call).ok())
                .map_or(SteerPolicy::Queue, SteerPolicy::Forward),
        }
    }

    /// What the answers of `route` may be.
    pub fn answers(&self, route: &Route) -> Answers {
        Answers { named: route.dialect.clone(), dialects: self.dialects.clone() }
    }

    /// The route of a request. One that we make ourselves has no headers that a route could ask for.
    pub fn of(&self, method: &Method, path: &str, headers: Option<&HeaderMap>) -> &Arc<Route> {
        self.named.iter().find(|route| route.is_of(method, path, headers)).unwrap_or(&self.unnamed)
    }

    /// What a request is to resume; `None`: nothing, it has a route of its own.
    pub fn resume<'p>(&self, method: &Method, path: &'p str, headers: &HeaderMap) -> Option<Resume<'_, 'p>> {
        let pattern = self.named.iter().find_map(|route| {
            let own = route.is_of(method, path, Some(headers)).then_some(None);
            own.or_else(|| route.resume.iter().find(|pattern| pattern.matches(method, path)).map(Some))
        })??;
        let value = path_segment(&pattern.path, path, "session")?;
        let family = self.named.iter().filter(|route| route.resume.contains(pattern)).collect();
        Some(Resume { value, family })
    }

    /// Why streams of this request are not recorded, if they are not.
    pub fn kept_out(&self, route: &Route, method: &Method, path: &str) -> Option<KeptOut> {
        if matches!(*method, Method::HEAD | Method::CONNECT) {
            return Some(KeptOut::Method);
        }
        if self.intercept == Intercept::Off {
            return Some(KeptOut::Intercept);
        }
        match (route.record, route.intercept, &self.intercept) {
            (false, _, _) | (true, Some(false), _) => Some(KeptOut::Route),
            (true, Some(true), _) => None,
            (true, None, Intercept::Only(patterns)) => {
                let named = patterns.iter().any(|pattern| pattern.matches(method, path));
                (!named).then_some(KeptOut::Intercept)
            }
            (true, None, _) => (*method == Method::GET).then_some(KeptOut::Method),
        }
    }

    /// Whether clients may begin runs there with `send`: what the route says, else where its streams
    /// are recorded.
    pub fn may_send(&self, route: &Route, method: &Method, path: &str) -> bool {
        route.send.unwrap_or_else(|| self.kept_out(route, method, path).is_none())
    }
}

impl Resume<'_, '_> {
    /// Whether a run that was begun by this request is one of the family.
    pub fn is_of(&self, method: &str, path: &str) -> bool {
        let method = method.parse().unwrap_or(Method::POST);
        self.family.iter().any(|route| route.pattern.matches(&method, path))
    }

    /// The rules by which the family's sessions are found, each once.
    pub fn rules(&self) -> Vec<&SessionRule> {
        let mut rules = Vec::new();
        for rule in self.family.iter().flat_map(|route| &route.session) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }
}

impl Route {
    fn is_of(&self, method: &Method, path: &str, headers: Option<&HeaderMap>) -> bool {
        let holds = |condition: &Condition| headers.is_some_and(|headers| condition.holds(headers));
        self.pattern.matches(method, path) && self.when.as_ref().is_none_or(holds)
    }
}

impl Answers {
    /// The dialect whose calls the runs of this route have: the first one named that has any.
    pub fn calls(&self) -> Option<&Arc<Dialect>> {
        let named = self.named.iter().filter_map(|name| self.dialects.named(name));
        named.into_iter().find(|dialect| dialect.cancel.is_some() || dialect.follow_up.is_some())
    }

    /// What an answer with these headers is; `None`: no stream that is recorded.
    pub fn format(&self, headers: &HeaderMap) -> Option<Format> {
        self.dialects.format_of(&self.named, |name| headers.get(name)?.to_str().ok())
    }
}
