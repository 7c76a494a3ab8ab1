//! The usual scene of a test: a store, an agent under the test's control, a sidecar between it and
//! the world.

use super::http::{Answer, Ask};
use super::scripted::{Asked, ScriptedAgent};
use super::sidecar::Sidecar;
use super::store::{RunningStore, Store};

/// A store, an agent and a sidecar.
pub(crate) struct Stage {
    // Fields are dropped in this order: the sidecar before what it needs.
    pub(crate) sidecar: Sidecar,
    pub(crate) agent: ScriptedAgent,
    pub(crate) store: RunningStore,
}

/// A run whose upstream is in the test's hands.
#[derive(Debug)]
pub(crate) struct Run {
    /// The session's id, as the direct caller was told.
    pub(crate) session: String,
    /// The run's id, as the direct caller was told.
    pub(crate) id: String,
    /// The direct caller's answer.
    pub(crate) caller: Answer,
    /// The upstream's side.
    pub(crate) upstream: Asked,
}

impl Stage {
    /// With defaults.
    pub(crate) async fn on(store: Store) -> Self {
        Stage::with(store, "").await
    }

    /// With more of the configuration file.
    pub(crate) async fn with(store: Store, config: &str) -> Self {
        let (store, agent) = (store.start(), ScriptedAgent::start().await);
        let sidecar = Sidecar::of(agent.url()).store(store.url()).config(config).start().await;
        Stage { sidecar, agent, store }
    }

    /// A second sidecar in front of the same agent, on the same store.
    pub(crate) async fn another_sidecar(&self) -> Sidecar {
        self.another_sidecar_with("").await
    }

    /// The same with more of the configuration file.
    pub(crate) async fn another_sidecar_with(&self, config: &str) -> Sidecar {
        Sidecar::of(self.agent.url()).store(self.store.url()).config(config).start().await
    }

    /// A run in a new session.
    pub(crate) async fn run(&mut self) -> Run {
        self.answered(self.sidecar.post("/chat")).await
    }

    /// A run in this session.
    pub(crate) async fn run_in(&mut self, session: &str) -> Run {
        self.answered(self.sidecar.post("/chat").header("sidestream-session", session)).await
    }

    /// The run that a request begins: the upstream has answered with the head of an event stream.
    pub(crate) async fn answered(&mut self, ask: Ask) -> Run {
        let upstream = async {
            let mut upstream = self.agent.asked().await;
            upstream.sse().await;
            upstream
        };
        let (caller, upstream) = tokio::join!(ask.send(), upstream);
        Run::new(caller, upstream)
    }
}

impl Run {
    /// The run that an answer names.
    pub(crate) fn new(caller: Answer, upstream: Asked) -> Self {
        assert_eq!(caller.status, 200, "{caller:?}");
        let (session, id) = (caller.header("sidestream-session").into(), caller.header("sidestream-run").into());
        Run { session, id, caller, upstream }
    }
}
