//! The machine that is measured on, and which part of it does what.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Who runs where. `None`: wherever the kernel likes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// The sidecar and Redis.
    pub(crate) sidecar: Option<usize>,
    /// The backend and this process.
    pub(crate) load: Option<usize>,
}

impl Cores {
    /// Takes core 0 for what is measured and core 1 for what measures, and moves this process to
    /// the latter; call it before threads exist. Without `taskset` or a second core nothing is
    /// pinned.
    pub(crate) fn pin() -> Self {
        let this = std::process::id().to_string();
        let mut taskset = Command::new("taskset");
        match taskset.args(["-pc", "1", &this]).stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(status) if status.success() => Cores { sidecar: Some(0), load: Some(1) },
            _ => Cores { sidecar: None, load: None },
        }
    }

    fn words(self) -> String {
        match (self.sidecar, self.load) {
            (Some(sidecar), Some(load)) => {
                format!("sidecar and Redis pinned to core {sidecar}, backend and load to core {load} (taskset)")
            }
            _ => "nothing pinned: taskset or a second core is missing".into(),
        }
    }
}

/// What a reader of the figures must know.
pub(crate) fn describe(cores: Cores) -> Value {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    json!({
        "cpu": model.trim(),
        "cores": processors(),
        "kernel": format!("Linux {}", kernel.trim()),
        "load_average_at_start": load.join(" "),
        "placement": cores.words(),
        "commit": first_line("git", &["describe", "--always", "--dirty"]),
        "rustc": first_line("rustc", &["--version"]),
        "redis": first_line("redis-server", &["--version"]),
        "redis_options": "--save \"\" --appendonly no",
        "build": if cfg!(debug_assertions) { "debug: what it says of Sidestream itself means nothing" } else { "release" },
    })
}

/// How many processors the machine has; this process itself may be pinned to one.
pub(crate) fn processors() -> usize {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines().filter(|line| line.starts_with("processor")).count().max(1)
}
