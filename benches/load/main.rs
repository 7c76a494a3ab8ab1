//! The load of Sidestream's benchmarks. Run it with `scripts/bench NAME`.
//!
//! Starts the real binary, a real Redis and a backend process, loads them over real sockets, checks
//! that every event came once and in order, and prints tables. A program of its own in the bench
//! target: it never ships, and it uses none of the product's code, so that a defect cannot hide
//! from it. It never asserts a figure: a figure is read by people.

mod backend;
mod cancel;
mod clock;
mod latency;
mod machine;
mod memory;
mod process;
mod redis;
mod replay;
mod report;
mod scene;
mod servers;
mod sse;
mod takeover;
mod tally;
mod upstream;
mod usage;
mod websocket;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::Value;

use crate::machine::Cores;
use crate::report::Report;
use crate::servers::Store;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Sidestream: release build, real processes, real sockets.
#[derive(Clone, Debug, Parser)]
#[command(name = "scripts/bench")]
pub(crate) struct Args {
    /// What to measure.
    experiment: Experiment,
    /// Keep NAME.md and NAME.json in this folder.
    #[arg(long, default_value = "target/bench")]
    save: PathBuf,
    /// Which stores.
    #[arg(long, value_delimiter = ',', default_value = "embedded,redis")]
    stores: Vec<Store>,
    /// latency, redis: how many runs at once.
    #[arg(long, default_value_t = 200)]
    runs: usize,
    /// latency, redis: events per second and run.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// latency: events that the backend writes at a time.
    #[arg(long, default_value_t = 1)]
    burst: u64,
    /// latency, redis: how long each phase is measured, seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// latency, cancel, takeover: how often all phases are gone through; what they measure is put together.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// latency: who reads a run through the sidecar.
    #[arg(long, value_delimiter = ',', default_value = "subscriber,caller,both")]
    audience: Vec<latency::Audience>,
    /// Bytes of an event's data.
    #[arg(long, default_value_t = 220)]
    bytes: usize,
    /// memory: how many idle WebSockets.
    #[arg(long, default_value_t = 5_000)]
    sockets: usize,
    /// replay, redis: events of a session.
    #[arg(long, default_value_t = 10_000)]
    events: u64,
    /// replay: how many clients at once.
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// cancel, takeover: how many runs are active.
    #[arg(long, default_value_t = 500)]
    active: usize,
    /// cancel: how many runs are cancelled, one after the other; they come on top of the active ones.
    #[arg(long, default_value_t = 250)]
    cancels: usize,
    /// cancel, takeover: between two events of a run.
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Measure this binary instead of the one built here: an older one, or a script around it.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_sidestream"), hide_default_value = true)]
    binary: PathBuf,
    /// Cargo says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Experiment {
    /// Added latency of an event, and CPU per event, at a stated load.
    Latency,
    /// Resident memory and CPU of idle WebSockets.
    Memory,
    /// How fast a stored session is read.
    Replay,
    /// How long a Stop takes: to the closed upstream, and to the end on all devices.
    Cancel,
    /// How long until everybody knows that the owner of their runs was killed.
    Takeover,
    /// What a Redis server does and holds for events and sessions.
    Redis,
    /// All of them.
    All,
    /// The backend process (started by the others).
    #[value(hide = true)]
    Backend,
}

/// An experiment's surroundings.
pub(crate) struct Bench {
    pub(crate) args: Args,
    pub(crate) cores: Cores,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.experiment == Experiment::Backend {
        return backend::serve();
    }
    let cores = Cores::pin();
    let machine = machine::describe(cores);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measure(Bench { args, cores }, &machine))
}

async fn measure(bench: Bench, machine: &Value) -> anyhow::Result<()> {
    let all = [
        Experiment::Latency,
        Experiment::Memory,
        Experiment::Replay,
        Experiment::Cancel,
        Experiment::Takeover,
        Experiment::Redis,
    ];
    let wanted = |experiment| [experiment, Experiment::All].contains(&bench.args.experiment);
    for experiment in all.into_iter().filter(|experiment| wanted(*experiment)) {
        let report: Report = match experiment {
            Experiment::Latency => latency::measure(&bench).await?,
            Experiment::Memory => memory::measure(&bench).await?,
            Experiment::Cancel => cancel::measure(&bench).await?,
            Experiment::Takeover => takeover::measure(&bench).await?,
            Experiment::Redis => redis::measure(&bench).await?,
            _ => replay::measure(&bench).await?,
        };
        println!("\n{}", report.markdown(machine));
        report.save(&bench.args.save, machine)?;
        println!("saved as {}/{}.md and .json", bench.args.save.display(), report.name);
    }
    Ok(())
}

/// Says what is being done; a benchmark takes minutes.
pub(crate) fn progress(what: &str) {
    eprintln!("  {what}");
}
