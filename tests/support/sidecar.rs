//! The real binary, with ports and a configuration file of its own.

use std::process::Command;

use serde_json::Value;

use super::http::{Answer, Ask};
use super::message::Message;
use super::process::Process;
use super::wait::until;
use super::websocket::WebSocket;

/// How a sidecar is started.
#[derive(Clone, Debug)]
pub(crate) struct SidecarOptions {
    upstream: String,
    store: String,
    config: String,
    ports: Option<[u16; 3]>,
}

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    options: SidecarOptions,
    ports: [u16; 3],
    process: Process,
    _dir: tempfile::TempDir,
}

/// A sidecar that did not start.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// Its exit code.
    pub(crate) code: i32,
    /// What it said.
    pub(crate) output: String,
}

impl Sidecar {
    /// A sidecar in front of `upstream`, with its store in memory.
    pub(crate) fn of(upstream: impl Into<String>) -> SidecarOptions {
        SidecarOptions { upstream: upstream.into(), store: "memory:".into(), config: String::new(), ports: None }
    }

    /// Where clients connect, `http://…`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// The data listener's port.
    pub(crate) fn port(&self) -> u16 {
        self.ports[0]
    }

    /// A request through it.
    pub(crate) fn post(&self, path: impl std::fmt::Display) -> Ask {
        Ask::post(&self.url(), path)
    }

    /// A request through it, or to its own routes.
    pub(crate) fn get(&self, path: impl std::fmt::Display) -> Ask {
        Ask::get(&self.url(), path)
    }

    /// A DELETE request.
    pub(crate) fn delete(&self, path: impl std::fmt::Display) -> Ask {
        Ask::new(http::Method::DELETE, &self.url(), path)
    }

    /// A request to the health listener.
    pub(crate) async fn health(&self, path: &str) -> Answer {
        Ask::get(&format!("http://127.0.0.1:{}", self.ports[1]), path).send().await
    }

    /// Whether it says that its store is away.
    pub(crate) async fn misses_store(&self) -> Option<()> {
        (self.health("/readyz").await.json().await["store"] == "down").then_some(())
    }

    /// Where operators connect, `http://…`.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[2])
    }

    /// A request to the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        Ask::get(&self.admin_url(), path).send().await
    }

    /// A WebSocket client that has been welcomed.
    pub(crate) async fn connect(&self) -> WebSocket {
        self.connect_to("/_sidestream/v1/ws").await
    }

    /// The same at another entrance.
    pub(crate) async fn connect_to(&self, path: &str) -> WebSocket {
        let mut socket = WebSocket::open(&self.url(), path, &[]).await.unwrap();
        socket.expect("welcome").await;
        socket
    }

    /// All entries of a session after `after`, from JSON pages of at most `limit`.
    pub(crate) async fn pages(&self, session: &str, after: &str, limit: usize) -> Vec<Message> {
        let mut entries = Vec::new();
        let mut after = after.to_owned();
        loop {
            let path = format!("/_sidestream/v1/sessions/{session}/events?after={after}&limit={limit}");
            let answer = self.get(path).header("accept", "application/json").send().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let (body, _) = answer.whole().await;
            let page: Page<'_> = serde_json::from_slice(&body).unwrap();
            assert!(page.entries.len() <= limit);
            entries.extend(page.entries.iter().map(|entry| Message::parse(entry.get())));
            match page.next {
                Some(next) => after = next,
                None => return entries,
            }
        }
    }

    /// All entries of a session.
    pub(crate) async fn entries(&self, session: &str) -> Vec<Message> {
        self.pages(session, "start", 1_000).await
    }

    /// The port of a listener, by what the sidecar has logged.
    fn bound(&self, listener: &str) -> Option<u16> {
        self.log().lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let bound = line["message"] == "listening" && line["listener"] == listener;
            bound.then(|| line["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap())
        })
    }

    /// The child process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    /// Starts it again, as it was, after its process has ended.
    pub(crate) async fn restart(mut self) -> Self {
        assert!(self.process.ended().is_some(), "it still runs");
        SidecarOptions { ports: Some(self.ports), ..self.options.clone() }.start().await
    }
}

#[derive(serde::Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    entries: Vec<&'a serde_json::value::RawValue>,
    next: Option<String>,
}

impl SidecarOptions {
    /// Keeps its sessions there.
    pub(crate) fn store(mut self, url: impl Into<String>) -> Self {
        self.store = url.into();
        self
    }

    /// More of the configuration file.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// Listens for clients on this port.
    pub(crate) fn port(mut self, port: u16) -> Self {
        self.ports = Some([port, 0, 0]);
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(self) -> Sidecar {
        self.start_and_wait_for("/readyz").await
    }

    /// Starts it and waits until it lives; it may not be ready.
    pub(crate) async fn start_unready(self) -> Sidecar {
        self.start_and_wait_for("/livez").await
    }

    /// Starts it and waits for its end.
    pub(crate) async fn does_not_start(self) -> NotStarted {
        let mut sidecar = self.spawn();
        let code = sidecar.process.end().await.code().unwrap();
        NotStarted { code, output: sidecar.log() }
    }

    async fn start_and_wait_for(self, path: &str) -> Sidecar {
        let mut sidecar = self.spawn();
        sidecar.ports = until("the sidecar's addresses", async || {
            if let Some(status) = sidecar.process.ended() {
                panic!("the sidecar has ended: {status}");
            }
            Some([sidecar.bound("data")?, sidecar.bound("health")?, sidecar.bound("admin")?])
        })
        .await;
        until(format!("{path} of the sidecar"), async || (sidecar.health(path).await.status == 200).then_some(()))
            .await;
        sidecar
    }

    fn spawn(self) -> Sidecar {
        // Port 0 takes a free one, which is logged.
        let ports = self.ports.unwrap_or_default();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sidestream.toml");
        std::fs::write(&file, &self.config).unwrap();
        let address = |port: u16| format!("127.0.0.1:{port}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestream"));
        command.args(["serve", "--upstream", &self.upstream, "--store", &self.store, "--listen", &address(ports[0])]);
        command.args(["--health-listen", &address(ports[1]), "--admin-listen", &address(ports[2]), "--config"]);
        command.arg(&file).env("RUST_BACKTRACE", "1");
        if !self.config.contains("eager_after") {
            // On a busy machine the store may be slow; a test that is about that says so.
            command.env("SIDESTREAM_STORE__EAGER_AFTER", "20s");
        }
        Sidecar { options: self, ports, process: Process::spawn("the sidecar", &mut command), _dir: dir }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.process.kill();
        if !std::thread::panicking() {
            let log = self.log();
            assert!(!log.contains("panic"), "the sidecar panicked:\n{log}");
        }
    }
}
