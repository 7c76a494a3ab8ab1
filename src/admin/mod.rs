//! What operators and the platform ask, on listeners of their own: health (read-only, may face the
//! kubelet) and admin (never public). Nothing here touches a session's content.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::timeout;

use crate::log::{Log, StoreHealth, Unavailable};
use crate::run::Runs;
use crate::server::{Body, Problem, full};
use crate::session::Subject;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::{self, Metrics};
use crate::wire::{Code, SessionLine, session_list};

/// How long `/wait-for-drain` waits where no drain begins (the app's container restarts alone).
const NO_DRAIN: Duration = Duration::from_secs(1);

/// Sessions listed at most.
const MAX_SESSIONS: usize = 1_000;

/// What both listeners look at.
pub struct Admin {
    /// The store.
    pub log: Arc<dyn Log>,
    /// The runs.
    pub runs: Arc<Runs>,
    /// The drain.
    pub shutdown: Shutdown,
    /// The counters.
    pub metrics: Metrics,
    /// How long runs may go on once the drain has begun.
    pub run_deadline: Duration,
    /// The store was there at some time.
    pub had_store: AtomicBool,
}

impl Admin {
    /// The health listener: `/livez`, `/readyz`, `/metrics`, `/wait-for-drain`.
    pub async fn health(&self, request: Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/livez") => text(StatusCode::OK, "alive\n"),
            (&Method::GET | &Method::HEAD, "/readyz") => self.readiness(),
            (&Method::GET | &Method::HEAD, "/metrics") => {
                let mut response = Response::new(full(self.metrics.encode()));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(telemetry::CONTENT_TYPE));
                response
            }
            (&Method::GET, "/wait-for-drain") => self.wait_for_drain().await,
            _ => not_found("health: /livez, /readyz, /metrics, /wait-for-drain"),
        }
    }

    /// The admin listener: `/sessions`, `/drain`.
    pub async fn admin(&self, request: Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/sessions") => {
                let query = request.uri().query().unwrap_or_default();
                self.sessions(query).await.unwrap_or_else(Problem::into_response)
            }
            (&Method::POST, "/drain") => {
                self.shutdown.begin();
                document(StatusCode::ACCEPTED, &json!({"draining": true, "runs": self.runs.active()}))
            }
            (_, "/drain") => Problem::new(Code::MethodNotAllowed, "POST /drain begins the drain").into_response(),
            _ => not_found("admin: GET /sessions, POST /drain"),
        }
    }

    /// Ready means: send me requests. An instance that has never had its store is not, so that a rollout with a
    /// wrong one stops. One that had it stays ready while the store is away, and says so: its neighbours have the
    /// same store, the backend's plain streams still flow, and who takes all instances out of service at once
    /// makes a total outage of it.
    fn readiness(&self) -> Response<Body> {
        let health = self.log.health().borrow().clone();
        let phase = self.shutdown.phase();
        let (store, reason) = match &health {
            StoreHealth::Up => ("up", None),
            StoreHealth::Down { reason } => ("down", Some(reason.as_str())),
        };
        let ready = phase == Phase::Serving && self.had_store.load(Ordering::Relaxed);
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let draining = phase != Phase::Serving;
        let warnings = self.log.warnings();
        document(
            status,
            &json!({"ready": ready, "draining": draining, "store": store, "store_reason": reason, "store_warnings": warnings}),
        )
    }

    async fn wait_for_drain(&self) -> Response<Body> {
        if timeout(NO_DRAIN, self.shutdown.draining()).await.is_ok() {
            let _ = timeout(self.run_deadline, self.no_runs()).await;
        }
        document(
            StatusCode::OK,
            &json!({"draining": self.shutdown.phase() != Phase::Serving, "runs": self.runs.active()}),
        )
    }

    async fn no_runs(&self) {
        while self.runs.active() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Some of all sessions; with `?subject=DIGEST`, those of a subject, newest first.
    async fn sessions(&self, query: &str) -> Result<Response<Body>, Problem> {
        let unavailable = |error: Unavailable| Problem::new(Code::StoreUnavailable, error.detail);
        if let Some((_, subject)) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "subject") {
            let detail = "`subject` is 64 hexadecimal digits, as the store has it";
            let subject = Subject::parse(&subject).ok_or_else(|| Problem::new(Code::BadRequest, detail))?;
            let rows = self.log.sessions_of(&subject, MAX_SESSIONS, None).await.map_err(unavailable)?;
            let lines = rows.iter().map(|row| SessionLine {
                session: &row.used.session,
                tail: row.tail,
                created_ms: row.created_ms,
                used_ms: row.used.ms,
                active: row.active,
            });
            return Ok(document(StatusCode::OK, &session_list(lines, None)));
        }
        let rows = self.log.sessions(MAX_SESSIONS).await.map_err(unavailable)?;
        let sessions: Vec<_> = rows
            .iter()
            .map(
                |row| json!({"session": row.session.as_str(), "tail": row.tail.to_string(), "active_runs": row.active}),
            )
            .collect();
        Ok(document(StatusCode::OK, &json!({"sessions": sessions, "limit": MAX_SESSIONS})))
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
}

fn document(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn not_found(known: &str) -> Response<Body> {
    Problem::new(Code::NotFound, format!("there is no such page; {known}")).into_response()
}
