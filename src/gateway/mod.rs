//! The gateway: everything that serves sessions to clients. WebSocket ([`ws`]), SSE ([`sse`]),
//! JSON pages and the small HTTP API ([`api`]).
//!
//! It reads through [`crate::hub`] cursors and writes what [`crate::wire`] encodes. It never reads
//! the log past the hub for a live stream, and never shows what the log has not acknowledged.

pub mod api;
mod attachment;
mod caller;
mod control;
pub mod demo;
mod document;
pub mod handshake;
mod listing;
mod pages;
mod query;
pub mod run_stream;
mod sharing;
mod socket;
pub mod sse;
mod writing;
pub mod ws;

pub use caller::Caller;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::auth::Principal;
use crate::config::{Config, Routes};
use crate::control::Control;
use crate::dialect::Dialects;
use crate::hub::{Compacting, Hub, Merge, RunDialects};
use crate::log::Log;
use crate::session::SessionId;
use crate::sharing::{Attendance, Publisher};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

pub use writing::Writers;

/// What all connections of the gateway share.
pub struct Gateway {
    /// Followed sessions.
    pub hub: Arc<Hub>,
    /// Live control.
    pub control: Arc<Control>,
    /// Headers of a client's own request that go with what it sends.
    pub credentials: Vec<HeaderName>,
    /// The routes of the upstream, whose runs are sent as they say.
    pub routes: Routes,
    /// The dialects that runs may speak.
    pub dialects: Arc<Dialects>,
    /// The log, for what is not followed: bounds, runs, pages, erase.
    pub log: Arc<dyn Log>,
    /// What agents that write directly need.
    pub writers: Writers,
    /// Bounds and manners.
    pub settings: Settings,
    /// When to leave.
    pub shutdown: Shutdown,
    /// Counters.
    pub metrics: Metrics,
    /// Who is here through this instance.
    pub attendance: Arc<Attendance>,
    /// The producer of what clients publish.
    pub publisher: Arc<Publisher>,
    /// Where a request says whose it is.
    pub principal: Principal,
    /// Origins that may use our own routes from a browser.
    pub cors_origins: Vec<String>,
    /// The connections, for the shutdown to wait for.
    pub tasks: TaskTracker,
    /// Places for WebSocket connections.
    pub places: Arc<Semaphore>,
}

impl Gateway {
    /// Which dialects the runs of `session` speak, for a reader that has them merged.
    fn run_dialects(&self, session: &SessionId) -> RunDialects {
        RunDialects::new(self.log.clone(), self.dialects.clone(), session.clone())
    }

    /// What merges for a reader of `session`, where it wants anything merged.
    fn compacting(&self, session: &SessionId, merge: Merge) -> Option<Compacting> {
        (!merge.is_none()).then(|| Compacting::new(merge, self.run_dialects(session)))
    }

    /// A place for one more WebSocket connection, if there is one.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }
}

/// Bounds and manners of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time between our pings.
    pub heartbeat: Duration,
    /// Sessions attached on one socket.
    pub sessions_per_socket: usize,
    /// Largest message of a client, bytes.
    pub message_bytes: usize,
    /// Over how long clients are told to go.
    pub spread: Duration,
}

impl Settings {
    /// The settings that `config` says.
    pub fn new(config: &Config) -> Self {
        Settings {
            heartbeat: Duration::from_secs(25),
            sessions_per_socket: config.limits.sessions_per_socket,
            message_bytes: config.limits.message_bytes,
            spread: config.shutdown.spread,
        }
    }
}
