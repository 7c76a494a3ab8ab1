//! Which route a request takes, and whether its streams are recorded.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::settings::{Config, Intercept, Route};
use crate::dialect::{Dialects, Format};

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
    named: Option<String>,
    dialects: Arc<Dialects>,
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

    /// What the answers of `route` may be.
    pub fn answers(&self, route: &Route) -> Answers {
        Answers { named: route.dialect.clone(), dialects: self.dialects.clone() }
    }

    /// The route of a request.
    pub fn of(&self, method: &Method, path: &str) -> &Arc<Route> {
        self.named.iter().find(|route| route.pattern.matches(method, path)).unwrap_or(&self.unnamed)
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

impl Answers {
    /// What an answer with these headers is; `None`: no stream that is recorded.
    pub fn format(&self, headers: &HeaderMap) -> Option<Format> {
        self.dialects.format_of(self.named.as_deref(), |name| headers.get(name)?.to_str().ok())
    }
}
