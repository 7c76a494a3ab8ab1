//! `send`: a request that the sidecar makes to the upstream for a client. Its run is in the log
//! before the upstream hears of it; the same key never begins a second one.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use http::HeaderMap;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::config::Route;
use crate::control::keys::{Key, never_mind};
use crate::control::request::Sendable;
use crate::control::root::{ANSWER_WITHIN, ASK_AGAIN};
use crate::control::{Calls, Client, Control, Origin, calling, requested};
use crate::dialect::Format;
use crate::log::{Bounds, CancelRequest, CancelTarget, Closed, OnBusy, Opened, StoreHealth, Unavailable, Waiting};
use crate::run::{Ending, RunSpec, Started, Tagging};
use crate::server::{Problem, own_path};
use crate::session::{BusyPolicy, Record, RunId, RunState, SessionId, Subject};
use crate::telemetry::{Fact, RunStarted, SendAnswered};
use crate::wire::{Code, Outcome, SendRun, Sent};

/// How soon a run is tried again that this instance is still busy with.
pub(super) const LEAVING: Duration = Duration::from_millis(10);

/// How often a run tries to interrupt those that come in its way.
const INTERRUPTIONS: usize = 4;

/// A run to begin.
pub(super) struct Begin<'a> {
    pub(super) session: &'a SessionId,
    pub(super) run: &'a RunId,
    pub(super) key: Option<ByteString>,
    /// The key as it was claimed, where that is known.
    pub(super) claimed: Option<Key>,
    pub(super) parent: Option<RunId>,
    pub(super) sendable: Sendable,
    pub(super) route: Arc<Route>,
    /// The name of the route that it waited for, where it did.
    pub(super) waited_on: Option<ByteString>,
    /// What goes with the request and is kept nowhere.
    pub(super) credentials: HeaderMap,
    /// Whose it is.
    pub(super) subject: Option<Subject>,
}

impl Begin<'_> {
    /// The name of its route: the one that it waited for, where it did.
    pub(super) fn route_name(&self) -> ByteString {
        self.waited_on.clone().unwrap_or_else(|| self.route.pattern.to_string().into())
    }
}

impl Control {
    /// Begins a run for a client, or queues it, or finds the one that its key has begun. Must not be
    /// abandoned halfway: whoever calls lets it come to its end, whatever the client does.
    ///
    /// # Errors
    /// What the client asks for is not allowed or makes no sense; the route is busy; the store is away.
    /// Nothing was begun then.
    pub async fn send(&self, client: &Client, send: SendRun) -> Result<Outcome, Problem> {
        let answer = self.sent(client, send, None).await;
        SendAnswered { outcome: answer.as_ref().ok().and_then(Outcome::word) }.emit(&self.metrics);
        answer
    }

    /// The same, `instead_of` a run, which is ended where a run may begin and the key has not begun one.
    pub(super) async fn sent(
        &self,
        client: &Client,
        send: SendRun,
        instead_of: Option<&RunId>,
    ) -> Result<Outcome, Problem> {
        let sendable = Sendable::new(&send, client, &self.send)?;
        let route = self.route(&sendable)?;
        let health = match &send.session {
            Some(session) => self.log.health_of(session),
            None => self.log.health().borrow().clone(),
        };
        if let StoreHealth::Down { reason } = health {
            return Err(Problem::store_unavailable(Unavailable::new(reason)));
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            if let Some(outcome) = self.attempt(client, &send, &sendable, &route, instead_of).await? {
                return Ok(outcome);
            }
            if Instant::now() + ASK_AGAIN > deadline {
                let detail = "this instance could not begin the run, others have taken it for dead; send again";
                return Err(Problem::new(Code::Draining, detail));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Begins a run, unless its key has begun one. `None`: it never begins, because whoever was to open it
    /// was taken for dead before; another may.
    async fn attempt(
        &self,
        client: &Client,
        send: &SendRun,
        sendable: &Sendable,
        route: &Arc<Route>,
        instead_of: Option<&RunId>,
    ) -> Result<Option<Outcome>, Problem> {
        let mut session = match &send.session {
            Some(session) => self.writable(session).await?.clone(),
            None => SessionId::from_random(crate::random::u128()),
        };
        let mut run = RunId::from_random(crate::random::u128());
        let mut claimed = None;
        if let Some(name) = &send.key {
            // Keys belong to a session, or where it is new to whoever sends.
            let scope = match (&send.session, &client.subject) {
                (Some(session), _) => format!("session {session}"),
                (None, subject) => format!("subject {}", subject.as_ref().map_or("", Subject::as_str)),
            };
            let key = self.claim(format!("send\n{scope}\n{name}"), &session, &run, sendable.digest(), "").await?;
            (session, run) = (key.session.clone(), key.run.clone());
            if key.is_taken
                && let Some(outcome) = self.find(&session, &run).await?
            {
                return Ok(Some(outcome));
            }
            if key.has_begun() {
                return self.gone(client, &key).await.map(Some);
            }
            // Whoever had the key first has not opened the run, and may never do so.
            claimed = Some(key);
        }
        if let Some(run) = instead_of {
            self.end_runs(client, &session, CancelTarget::Run(run.clone())).await?;
        }
        let (sendable, route, credentials) = (sendable.clone(), route.clone(), client.credentials.clone());
        let (key, parent, subject) = (send.key.clone(), send.parent.clone(), client.subject.clone());
        let on_busy = send.on_busy.unwrap_or(route.on_busy);
        let waited_on = None;
        let begin = Begin {
            session: &session,
            run: &run,
            key,
            claimed,
            parent,
            sendable,
            route,
            waited_on,
            credentials,
            subject,
        };
        match on_busy {
            BusyPolicy::Parallel => self.begin(&begin, client, OnBusy::Parallel).await,
            BusyPolicy::Reject => self.begin(&begin, client, OnBusy::Reject).await,
            BusyPolicy::Queue => match self.waiting(&begin, client) {
                Some(waiting) => self.begin(&begin, client, waiting).await,
                // Only where it would have to wait: else its own credentials go with it.
                None => self.begin(&begin, client, OnBusy::Reject).await.map_err(cannot_wait),
            },
            BusyPolicy::Interrupt => self.interrupt(&begin, client).await,
        }
    }

    /// Opens the run; its owner calls the upstream then. `None`: this instance has a run of this id.
    pub(super) fn open(&self, begin: &Begin<'_>, on_busy: OnBusy) -> Option<oneshot::Receiver<Opened>> {
        let Begin { session, run, key, claimed: _, parent, sendable, route, waited_on: _, credentials, subject } =
            begin;
        let started = Started {
            method: sendable.method.to_string(),
            path: sendable.path().to_owned(),
            parent: parent.as_ref().map(RunId::to_string),
            ..Started::default()
        };
        let mut record = Record::run_state((*run).clone(), RunState::Started, started.to_json());
        record.source.clone_from(&sendable.source);
        let headers = sendable.call_headers(credentials);
        let answers = self.routes.answers(route);
        let values = requested(answers.calls(), sendable.body.as_bytes());
        let origin = Origin { path: sendable.path(), peer: sendable.peer, headers, values };
        let calls = Calls::new(&self.proxy, route, &answers, session, origin);
        let spec = RunSpec {
            session: (*session).clone(),
            run: (*run).clone(),
            opening: sendable.input(route, run).into_iter().chain([record]).collect(),
            status: None,
            source: sendable.source.clone(),
            parent: parent.clone(),
            key: key.clone(),
            route: begin.route_name(),
            on_busy,
            subject: subject.clone(),
            values: calls.values,
            on_cancel: calls.cancel,
            steer: calls.steer,
            format: Format::default(),
            ending: Ending::default(),
            ids: Tagging::Off,
            grace: None,
            stall: route.stall,
            stall_limit: route.stall_limit,
        };
        let (sendable, credentials) = (sendable.clone(), credentials.clone());
        self.runs.open(spec, calling::call(self.proxy.clone(), answers, sendable, credentials, session, run))
    }

    /// Opens the run and says what became of it.
    async fn begin(&self, begin: &Begin<'_>, client: &Client, on_busy: OnBusy) -> Result<Option<Outcome>, Problem> {
        match self.opened(begin, on_busy).await? {
            Opened::Busy { runs } => {
                let runs: Vec<_> = runs.iter().map(RunId::as_str).collect();
                let detail = "runs of the route are active or wait; wait for their end, or send with `on_busy` \"queue\", \"interrupt\" or \"parallel\"";
                Err(Problem::new(Code::Busy, detail).with("runs", runs))
            }
            opened => self.outcome(begin, client, opened, Vec::new()).await,
        }
    }

    async fn opened(&self, begin: &Begin<'_>, on_busy: OnBusy) -> Result<Opened, Problem> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut opening = loop {
            if let Some(opening) = self.open(begin, on_busy.clone()) {
                break opening;
            }
            // An equal `send`, or an earlier attempt of this one, is about to be done with the run.
            if self.find(begin.session, begin.run).await?.is_some() {
                return Ok(Opened::Fenced);
            }
            if Instant::now() + LEAVING > deadline {
                return Err(Problem::new(Code::StoreUnavailable, "the store does not answer; send again"));
            }
            sleep(LEAVING).await;
        };
        match timeout(ANSWER_WITHIN, &mut opening).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(_)) => Err(Problem::new(Code::Draining, "this instance is leaving; send again with the same key")),
            Err(_) => {
                if let Ok(opened) = opening.try_recv() {
                    return Ok(opened);
                }
                // Should the log open it after all, it ends before the upstream hears of it.
                let by: ByteString = json!({"reason": "store_unavailable"}).to_string().into();
                if let Some(driven) = self.runs.driven(begin.run) {
                    driven.cancel(by.clone());
                }
                let target = CancelTarget::Run(begin.run.clone());
                let withdraw = CancelRequest { session: begin.session.clone(), target, by };
                tokio::spawn(never_mind(self.log.clone(), opening, withdraw, begin.claimed.clone()));
                Err(Problem::new(Code::StoreUnavailable, "the store does not answer; nothing was sent to the upstream"))
            }
        }
    }

    async fn outcome(
        &self,
        begin: &Begin<'_>,
        client: &Client,
        opened: Opened,
        interrupted: Vec<RunId>,
    ) -> Result<Option<Outcome>, Problem> {
        let (session, run) = (begin.session.clone(), begin.run.clone());
        if let (Opened::Open { .. } | Opened::Queued { .. }, Some(key)) = (&opened, &begin.claimed) {
            key.begins(&self.log);
        }
        let (outcome, offset) = match opened {
            Opened::Open { started, flags } => {
                let route = begin.route_name();
                // The upstream is called now: its dialect is known when it answers.
                RunStarted { session: &session, run: &run, route: &route, dialect: None, queued: false }
                    .emit(&self.metrics);
                (if flags.cancel.is_some() { Sent::Cancelled } else { Sent::Started }, Some(started))
            }
            Opened::Queued { position } => (Sent::Queued(position), None),
            // Where nobody has a run of this id it was us who may not open any more.
            Opened::Fenced | Opened::Closed(Closed::Terminal { .. }) => return self.find(&session, &run).await,
            Opened::Closed(Closed::Unknown) if self.is_withdrawn(&session, &run, client).await? => {
                (Sent::Cancelled, None)
            }
            Opened::Closed(Closed::Unknown) => {
                if let Some(key) = &begin.claimed {
                    key.free(&*self.log).await.map_err(Problem::store_unavailable)?;
                }
                return Ok(None);
            }
            Opened::QueueFull => {
                let detail = "no more may wait in this session (limits.queue_depth, limits.queue_bytes); send when some have begun, or withdraw one";
                return Err(Problem::new(Code::TooMany, detail));
            }
            Opened::Closed(Closed::Expired) => return Err(Problem::new(Code::Gone, "the session has expired")),
            Opened::Closed(Closed::Erased) => return Err(Problem::new(Code::NotFound, "the session was erased")),
            Opened::Busy { .. } => return Err(Problem::new(Code::Busy, "the route is busy again and again")),
        };
        Ok(Some(Outcome::Sent { session, run, offset, outcome, interrupted }))
    }

    /// Cancels what runs or waits on the route, then begins.
    async fn interrupt(&self, begin: &Begin<'_>, client: &Client) -> Result<Option<Outcome>, Problem> {
        let mut interrupted = Vec::new();
        for _ in 0..INTERRUPTIONS {
            match self.opened(begin, OnBusy::Reject).await? {
                Opened::Busy { runs } => {
                    // The last that waits first: each end would begin the next one.
                    for run in runs.iter().rev() {
                        self.end_runs(client, begin.session, CancelTarget::Run(run.clone())).await?;
                    }
                    interrupted.extend(runs);
                }
                opened => return self.outcome(begin, client, opened, interrupted).await,
            }
        }
        Err(Problem::new(Code::Busy, "others begin runs here faster than they can be interrupted"))
    }

    /// What waits in the queue where the route is busy; `None`: its credentials cannot.
    fn waiting(&self, begin: &Begin<'_>, client: &Client) -> Option<OnBusy> {
        let vouched = client.has_credentials();
        if vouched && begin.route.credential.is_none() {
            return None;
        }
        let (item, client) = (begin.sendable.to_item(vouched), Some(client.name.clone()));
        Some(OnBusy::Queue(Waiting { item, client, limits: self.limits.queue }))
    }

    /// The route of a request that a client may make.
    fn route(&self, sendable: &Sendable) -> Result<Arc<Route>, Problem> {
        let (method, path) = (&sendable.method, sendable.path());
        let own = own_path(&self.limits.prefix, path).is_some();
        let route = self.routes.of(method, path, None);
        if own || !self.routes.may_send(route, method, path) {
            let detail = format!(
                "`{method} {path}` is not a route that clients may send to; the operator allows it by the route's `send`"
            );
            return Err(Problem::new(Code::Forbidden, detail));
        }
        Ok(route.clone())
    }

    /// The session, where a client may write to it: an id of the form that we derive must exist,
    /// for nobody makes one by naming it.
    async fn writable<'s>(&self, session: &'s SessionId) -> Result<&'s SessionId, Problem> {
        let derived = session.as_str().starts_with('~');
        if derived && !matches!(self.log.bounds(session).await.map_err(Problem::store_unavailable)?, Bounds::Live(_)) {
            return Err(Problem::new(
                Code::NotFound,
                "there is no such session, and an id with `~` is made by the server alone",
            ));
        }
        Ok(session)
    }
}

/// Why a client with credentials of its own is not queued.
fn cannot_wait(problem: Problem) -> Problem {
    match problem.code {
        Code::Busy => Problem::new(
            Code::Busy,
            "the route has an active run, and a client's credentials are never stored to wait for its end: send with `on_busy` \"interrupt\" or \"parallel\", or let the operator set the route's `credential`",
        ),
        _ => problem,
    }
}
