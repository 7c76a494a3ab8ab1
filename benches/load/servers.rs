//! The servers of a benchmark: backend, Redis, sidecar.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use tempfile::TempDir;

use crate::Bench;
use crate::machine::Cores;
use crate::process::Process;
use crate::usage;

/// Where the sidecar keeps sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// On disk, in process.
    Embedded,
    /// In a Redis server beside it.
    Redis,
}

impl Store {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Store::Embedded => "embedded",
            Store::Redis => "Redis",
        }
    }
}

/// A backend process.
pub(crate) struct Backend {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

/// A sidecar with its store and its backend.
pub(crate) struct Sidecar {
    pub(crate) process: Process,
    pub(crate) redis: Option<Process>,
    pub(crate) address: SocketAddr,
    pub(crate) backend: Backend,
    /// The store's URL.
    pub(crate) store: String,
    _folder: TempDir,
}

/// Sidecars on one store, in front of an upstream that is elsewhere.
pub(crate) struct Deployment {
    pub(crate) instances: Vec<Instance>,
    redis: Option<Process>,
    _folders: Vec<TempDir>,
}

/// One of them.
pub(crate) struct Instance {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

/// What was used up to a moment, or between two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// CPU seconds of the sidecar.
    pub(crate) sidecar: f64,
    /// CPU seconds of Redis.
    pub(crate) redis: f64,
    /// CPU seconds of the backend.
    pub(crate) backend: f64,
    /// CPU seconds of this process.
    pub(crate) load: f64,
    /// CPU seconds of the whole machine.
    pub(crate) machine: f64,
}

impl Backend {
    /// Starts the backend: this program in another role.
    pub(crate) async fn start(cores: Cores) -> anyhow::Result<Self> {
        let folder = folder()?;
        let this = std::env::current_exe()?;
        let mut process = Process::start("backend", &this, &["backend".into()], cores.load, folder.path())?;
        let find = |said: &str| said.strip_prefix("backend listening on ")?.lines().next()?.parse().ok();
        let address = process.wait_for(find).await?;
        Ok(Backend { address, process, _folder: folder })
    }

    /// What it and this process have used so far.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        Ok(Used {
            backend: usage::cpu_seconds(self.process.id())?,
            load: usage::cpu_seconds(std::process::id())?,
            machine: usage::machine_busy()?,
            ..Used::default()
        })
    }
}

impl Sidecar {
    /// Starts a sidecar on a store that is empty, with a backend behind it.
    pub(crate) async fn start(store: Store, bench: &Bench) -> anyhow::Result<Self> {
        let (folder, backend) = (folder()?, Backend::start(bench.cores).await?);
        let (redis, url) = open(store, bench.cores, folder.path()).await?;
        let Instance { process, address } = Instance::start(bench, backend.address, &url, folder.path()).await?;
        Ok(Sidecar { process, redis, address, backend, store: url, _folder: folder })
    }

    /// What all have used so far.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        Ok(Used {
            sidecar: usage::cpu_seconds(self.process.id())?,
            redis: self.redis.as_ref().map_or(Ok(0.0), |redis| usage::cpu_seconds(redis.id()))?,
            ..self.backend.used()?
        })
    }

    /// Its resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<u64> {
        usage::rss_kib(self.process.id())
    }
}

impl Deployment {
    /// Starts `instances` sidecars on a store that is empty.
    pub(crate) async fn start(
        store: Store,
        bench: &Bench,
        upstream: SocketAddr,
        instances: usize,
    ) -> anyhow::Result<Self> {
        let mut folders = vec![folder()?];
        let (redis, url) = open(store, bench.cores, folders[0].path()).await?;
        let mut started = Vec::new();
        for _ in 0..instances {
            let folder = folder()?;
            started.push(Instance::start(bench, upstream, &url, folder.path()).await?);
            folders.push(folder);
        }
        Ok(Deployment { instances: started, redis, _folders: folders })
    }

    /// What all have used so far.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        let mut sidecar = 0.0;
        for instance in &self.instances {
            sidecar += usage::cpu_seconds(instance.process.id())?;
        }
        Ok(Used {
            sidecar,
            redis: self.redis.as_ref().map_or(Ok(0.0), |redis| usage::cpu_seconds(redis.id()))?,
            load: usage::cpu_seconds(std::process::id())?,
            machine: usage::machine_busy()?,
            ..Used::default()
        })
    }
}

impl Instance {
    async fn start(bench: &Bench, upstream: SocketAddr, store: &str, folder: &Path) -> anyhow::Result<Self> {
        let mut arguments = vec![format!("--upstream=http://{upstream}"), format!("--store={store}")];
        let listeners = ["listen", "health-listen", "admin-listen"];
        arguments.extend(listeners.map(|listener| format!("--{listener}=127.0.0.1:0")));
        arguments.push("--log-format=json".into());
        let mut process = Process::start("sidestream", &bench.args.binary, &arguments, bench.cores.sidecar, folder)?;
        let address = process.wait_for(data_address).await?;
        Ok(Instance { process, address })
    }
}

impl Used {
    /// What was used since `before`.
    pub(crate) fn since(self, before: Used) -> Used {
        Used {
            sidecar: self.sidecar - before.sidecar,
            redis: self.redis - before.redis,
            backend: self.backend - before.backend,
            load: self.load - before.load,
            machine: self.machine - before.machine,
        }
    }

    /// Both.
    pub(crate) fn plus(self, other: Used) -> Used {
        Used {
            sidecar: self.sidecar + other.sidecar,
            redis: self.redis + other.redis,
            backend: self.backend + other.backend,
            load: self.load + other.load,
            machine: self.machine + other.machine,
        }
    }

    /// What others used: noise.
    pub(crate) fn others(self) -> f64 {
        (self.machine - self.sidecar - self.redis - self.backend - self.load).max(0.0)
    }
}

/// An empty store: the server, where it is one, and its URL.
async fn open(store: Store, cores: Cores, folder: &Path) -> anyhow::Result<(Option<Process>, String)> {
    match store {
        Store::Embedded => Ok((None, format!("file:{}", folder.join("data").display()))),
        Store::Redis => {
            let (process, port) = redis(cores, folder).await?;
            Ok((Some(process), format!("redis://127.0.0.1:{port}")))
        }
    }
}

/// A Redis server that keeps nothing on disk, as its port is free now.
async fn redis(cores: Cores, folder: &Path) -> anyhow::Result<(Process, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let port_text = port.to_string();
    let words = ["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let arguments: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let mut process = Process::start("redis", Path::new("redis-server"), &arguments, cores.sidecar, folder)
        .context("redis-server is needed (scripts/test installs it)")?;
    process.wait_for(|said| said.contains("Ready to accept connections").then_some(())).await?;
    Ok((process, port))
}

/// The data listener's address, from the sidecar's own log.
fn data_address(said: &str) -> Option<SocketAddr> {
    let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    // Ready is said after all three.
    let lines: Vec<_> = lines.collect();
    lines.iter().find(|line| line["message"] == "ready to forward")?;
    lines.iter().find(|line| line["listener"] == "data")?["address"].as_str()?.parse().ok()
}

/// A folder on the disk of the build, where the embedded store would really be written.
fn folder() -> anyhow::Result<TempDir> {
    std::fs::create_dir_all(env!("CARGO_TARGET_TMPDIR"))?;
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}
