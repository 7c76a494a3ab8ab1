//! What a run asks of its upstream beside reading its answer: the request that it begins with,
//! where it is ours to make, and the calls that its route has for live control. Whoever begins the
//! run says how; a run never knows of HTTP requests or credentials.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::dialect::Format;
use crate::run::{Ending, Started};
use crate::server::Body;

/// Calls the upstream. Made once, when the run is open; dropping the future closes the connection.
pub type Call = Box<dyn FnOnce() -> BoxFuture<'static, Result<Answer, CallFailed>> + Send>;

/// The head of the upstream's answer, and its body.
pub struct Answer {
    /// Status and headers.
    pub head: Started,
    /// What the body is, where it is a stream of events; else it is the run's result as a whole.
    pub format: Option<Format>,
    /// How the end of the body is known.
    pub ending: Ending,
    /// What follows.
    pub body: Body,
}

/// There is no answer. The run fails for this reason, a code of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFailed {
    /// Why.
    pub reason: &'static str,
}

/// A call that a route has for its runs (to cancel or to steer one), with the values that the run's
/// events gave.
#[derive(Clone)]
pub struct SideCall(Arc<SideCallFn>);

type SideCallFn = dyn Fn(Values, Option<Bytes>) -> BoxFuture<'static, Result<SideAnswer, CallFailed>> + Send + Sync;

/// The answer to a [`SideCall`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideAnswer {
    /// The upstream's status.
    pub status: u16,
    /// The beginning of its body.
    pub body: Bytes,
}

/// What the templates of a route's calls name, as far as it is known.
pub type Values = BTreeMap<String, serde_json::Value>;

impl SideCall {
    /// A call that is made by `call`, with a body where one is given.
    pub fn new(
        call: impl Fn(Values, Option<Bytes>) -> BoxFuture<'static, Result<SideAnswer, CallFailed>> + Send + Sync + 'static,
    ) -> Self {
        SideCall(Arc::new(call))
    }

    /// Makes the call.
    pub fn make(&self, values: Values, body: Option<Bytes>) -> BoxFuture<'static, Result<SideAnswer, CallFailed>> {
        (self.0)(values, body)
    }
}

impl fmt::Debug for SideCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SideCall")
    }
}

/// The values that a run's events have given so far, and those that are still looked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    wanted: Vec<(String, String)>,
    values: Arc<Mutex<Values>>,
}

impl Found {
    /// Looks for `wanted`: names, and JSON pointers into the events' data.
    pub(super) fn new(wanted: Vec<(String, String)>) -> Self {
        Found { wanted, values: Arc::default() }
    }

    /// Takes what the data of one event has. The first value of a name stays.
    pub(super) fn look_into(&mut self, data: &str) {
        if self.wanted.is_empty() || !data.starts_with('{') {
            return;
        }
        let mut values = lock(&self.values);
        self.wanted.retain(|(name, pointer)| {
            let Some(raw) = crate::json_pointer::find(data.as_bytes(), pointer) else { return true };
            values.insert(name.clone(), serde_json::from_str(raw.get()).unwrap_or_default());
            false
        });
    }

    /// What was found.
    pub(super) fn values(&self) -> Values {
        lock(&self.values).clone()
    }

    /// What is found from now on as well.
    pub(super) fn shared(&self) -> Arc<Mutex<Values>> {
        self.values.clone()
    }
}

pub(super) fn lock(values: &Mutex<Values>) -> std::sync::MutexGuard<'_, Values> {
    values.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_that_has_a_value_gives_it() {
        let wanted = |name: &str, pointer: &str| (name.to_owned(), pointer.to_owned());
        let mut found = Found::new(vec![wanted("run", "/metadata/run_id"), wanted("n", "/n")]);
        for data in ["[DONE]", r#"{"metadata":{"run_id":"r-1"}}"#, r#"{"metadata":{"run_id":"r-2"},"n":7}"#] {
            found.look_into(data);
        }
        let expected: Values = [("run".to_owned(), "r-1".into()), ("n".to_owned(), 7.into())].into();
        assert_eq!(found.values(), expected);
    }
}
