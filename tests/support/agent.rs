//! The demo agent as a real process: recorded answers of real services.

use std::process::Command;

use serde_json::Value;

use super::http::Ask;
use super::process::Process;
use super::wait::until;

/// A running demo agent.
pub(crate) struct Agent {
    _process: Process,
    url: String,
}

impl Agent {
    /// An agent that answers as fast as it is read.
    pub(crate) async fn recordings() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo-agent"));
        let recordings = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sse/visible");
        let process = Process::spawn("the demo agent", command.args(["--rate", "0", "--recordings", recordings]));
        let url = until("the demo agent's address", async || {
            let output = process.output();
            output.lines().find_map(|line| line.strip_prefix("demo-agent listening on ")).map(str::to_owned)
        });
        let url = url.await;
        Agent { _process: process, url }
    }

    /// Where it listens, `http://…`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How many requests it got for `METHOD /path`.
    pub(crate) async fn received(&self, what: &str) -> u64 {
        let report: Value = Ask::get(&self.url, "/requests").send().await.json().await;
        report["paths"][what]["received"].as_u64().unwrap_or(0)
    }
}
