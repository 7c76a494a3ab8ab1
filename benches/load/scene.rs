//! Many active runs on one or two sidecars, each in a session with two devices: where control is
//! measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::clock::now_ns;
use crate::servers::{Deployment, Store};
use crate::tally::{Tally, number};
use crate::upstream::Upstream;
use crate::websocket::WebSocket;
use crate::{Bench, sse, websocket};

/// How long all runs and devices may take to begin.
const BEGIN: Duration = Duration::from_secs(60);

/// Between the starts of two runs.
const BETWEEN: Duration = Duration::from_millis(2);

/// What comes twice comes within this.
const TWICE: Duration = Duration::from_millis(500);

/// Where the devices of a session are.
pub(crate) type Places = [usize; 2];

/// The scene. Dropping it ends it.
pub(crate) struct Scene {
    pub(crate) upstream: Upstream,
    pub(crate) deployment: Deployment,
    sessions: Vec<Session>,
    counts: Arc<Counts>,
    over: watch::Sender<bool>,
}

struct Session {
    devices: [JoinHandle<anyhow::Result<Watched>>; 2],
    cancel: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// What a device saw.
pub(crate) struct Watched {
    /// Right before it asked for the end.
    pub(crate) asked_ns: Option<u64>,
    /// When it was answered.
    pub(crate) acked_ns: Option<u64>,
    /// Terminals: when they came, and which.
    pub(crate) terminals: Vec<(u64, &'static str)>,
    /// The run's events, all of which must have come where there is a terminal.
    pub(crate) tally: Tally,
}

impl Scene {
    /// Starts `runs` runs through the first instance. Each of the devices of a session is at the
    /// instance that `places` says; the second may cancel.
    pub(crate) async fn start(bench: &Bench, store: Store, places: Places, runs: usize) -> anyhow::Result<Self> {
        let upstream = Upstream::start(runs, bench.args.every).await?;
        let instances = 1 + places.into_iter().max().unwrap_or_default();
        let deployment = Deployment::start(store, bench, upstream.address, instances).await?;
        let (over, until) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let mut sessions = Vec::new();
        let begun = Instant::now();
        for i in 0..runs {
            sleep_until(begun + BETWEEN * i as u32).await;
            let session = format!("bench-{i}");
            let (cancel, asked) = oneshot::channel();
            let mut asked = Some(asked);
            let mut devices = Vec::new();
            for (device, place) in places.into_iter().enumerate() {
                let query = format!("session={session}&after=start&create=1");
                let socket = websocket::connect(deployment.instances[place].address, &query).await?;
                let cancel = (device == 1).then(|| asked.take()).flatten();
                devices.push(tokio::spawn(watch(socket, session.clone(), cancel, counts.clone(), until.clone())));
            }
            let devices = <[_; 2]>::try_from(devices).ok().context("two devices")?;
            sessions.push(Session { devices, cancel: Some(cancel) });
            // The caller leaves after the head of the answer; the run goes on.
            sse::post(deployment.instances[0].address, &Upstream::path(i), Some(&session)).await?;
        }
        let scene = Scene { upstream, deployment, sessions, counts, over };
        scene.until("every device sees its run", BEGIN, || scene.counts.begun.load(Ordering::SeqCst), 2 * runs).await?;
        Ok(scene)
    }

    /// The second device of session `i` cancels the run.
    pub(crate) fn cancel(&mut self, i: usize) {
        if let Some(cancel) = self.sessions[i].cancel.take() {
            // A device that has ended says so when it is asked for what it saw.
            let _ = cancel.send(());
        }
    }

    /// Waits until `sessions` sessions have ended on both devices, at most for `limit`; then all is
    /// over. What the devices saw, session by session.
    pub(crate) async fn end(
        mut self,
        sessions: usize,
        limit: Duration,
    ) -> anyhow::Result<(Vec<[Watched; 2]>, Upstream)> {
        // What is missing then is counted, it does not keep anybody from the figures.
        let _ = self.until("the ends", limit, || self.counts.ended.load(Ordering::SeqCst), 2 * sessions).await;
        sleep(TWICE).await;
        self.over.send_replace(true);
        let mut seen = Vec::new();
        for session in self.sessions.drain(..) {
            let [first, second] = session.devices;
            seen.push([first.await??, second.await??]);
        }
        Ok((seen, self.upstream))
    }

    async fn until(&self, what: &str, limit: Duration, count: impl Fn() -> usize, wanted: usize) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        while count() < wanted {
            ensure!(Instant::now() < end, "{what}: {} of {wanted} after {limit:?}", count());
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

async fn watch(
    mut socket: WebSocket,
    session: String,
    cancel: Option<oneshot::Receiver<()>>,
    counts: Arc<Counts>,
    mut over: watch::Receiver<bool>,
) -> anyhow::Result<Watched> {
    let mut watched = Watched { asked_ns: None, acked_ns: None, terminals: Vec::new(), tally: Tally::open() };
    let mut begun = false;
    let asked = async {
        let asked = match cancel {
            Some(cancel) => cancel.await.is_ok(),
            None => false,
        };
        // Dropped without a word: nobody will ask.
        if !asked {
            std::future::pending().await
        }
    };
    tokio::pin!(asked);
    loop {
        let mut at = None;
        tokio::select! {
            open = socket.messages(|message| {
                let at = *at.get_or_insert_with(now_ns);
                if message.starts_with(b"{\"type\":\"event\"") {
                    watched.tally.event(message, at);
                    if !std::mem::replace(&mut begun, true) {
                        counts.begun.fetch_add(1, Ordering::SeqCst);
                    }
                } else if message.starts_with(b"{\"type\":\"ack\"") {
                    watched.acked_ns.get_or_insert(at);
                } else if message.starts_with(b"{\"type\":\"run\"")
                    && let Some(state) = terminal(message)
                {
                    if watched.terminals.is_empty() {
                        counts.ended.fetch_add(1, Ordering::SeqCst);
                    }
                    watched.terminals.push((at, state));
                    if let Some(events) = number(message, b"\"events\":") {
                        watched.tally.ends_after(events);
                    }
                }
            }) => {
                // A sidecar that was killed: what its devices have seen by then is all.
                if !open.unwrap_or(false) {
                    return Ok(watched);
                }
            }
            () = &mut asked, if watched.asked_ns.is_none() => {
                let message = format!(r#"{{"type":"cancel","session":"{session}","run":"active","ref":"c"}}"#);
                watched.asked_ns = Some(now_ns());
                socket.send(&message).await?;
            }
            _ = over.changed() => return Ok(watched),
        }
    }
}

/// The terminal that a `run` message is.
fn terminal(message: &[u8]) -> Option<&'static str> {
    let states = ["cancelled", "interrupted", "completed", "failed"];
    states.into_iter().find(|state| {
        let state = format!("\"state\":\"{state}\"");
        memchr::memmem::find(message, state.as_bytes()).is_some()
    })
}
