//! What the store costs a Redis server: CPU, commands and bytes per event, and memory per event and session.
//!
//! Asked of the server itself (`INFO`), so that neither the sidecar's pace nor the load's is in the figures.

use std::collections::BTreeMap;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use anyhow::Context;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::Load;
use crate::latency::{self, Audience};
use crate::report::{Cell, Report, Table};
use crate::servers::{Sidecar, Store};
use crate::{Bench, progress, sse};

/// Before anything is measured, so that the sidecar has said all that it says once.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a sidecar that does nothing is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Sizes of an event's data whose memory is measured.
const SIZES: [usize; 3] = [20, 120, 250];
/// Sessions whose memory is measured.
const SESSIONS: usize = 1000;

/// A load: how many runs, how many events they write at a time.
#[derive(Clone, Copy)]
struct Pace {
    words: &'static str,
    runs: usize,
    burst: u64,
}

/// What a server has done up to a moment, or between two.
#[derive(Clone, Copy, Default)]
struct Done {
    cpu: f64,
    /// Seconds that scripts have run.
    running: f64,
    events: f64,
    /// Scripts that were called.
    scripts: f64,
    /// Commands that clients sent, scripts among them.
    requests: f64,
    /// Commands that scripts called.
    inner: f64,
    received: f64,
    sent: f64,
    seconds: f64,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Report> {
    let args = &bench.args;
    let mut cost = Table::new(
        "What a Redis server does for an event, without what it does for a sidecar that is idle.",
        &[
            "load",
            "events/s",
            "events per script",
            "CPU µs per event",
            "of it in scripts",
            "requests per event",
            "commands in scripts per event",
            "bytes received per event",
            "bytes sent per event",
        ],
    );
    let mut idle = Table::new(
        "What it does for a sidecar that is idle, per second.",
        &["sidecars", "CPU µs/s", "requests/s", "commands in scripts/s", "bytes received/s", "bytes sent/s"],
    );
    let many = args.runs;
    for (i, pace) in [
        Pace { words: "one run, one event at a time", runs: 1, burst: 1 },
        Pace { words: "many runs, one event at a time", runs: many, burst: 1 },
        Pace { words: "many runs, 16 events at a time", runs: many, burst: 16 },
    ]
    .into_iter()
    .enumerate()
    {
        progress(&format!("redis: {}", pace.words));
        let (nothing, done) = load(bench, pace).await.with_context(|| pace.words)?;
        cost.row(done.less(nothing).per_event(pace.words));
        if i == 0 {
            idle.row(nothing.per_second());
        }
    }
    let mut memory = Table::new(
        "Memory of a server that holds one session of many events (`used_memory`, and `MEMORY USAGE` of the keys).",
        &["data bytes of an event", "events", "bytes per event", "of it in the stream", "over the data"],
    );
    for bytes in SIZES {
        progress(&format!("redis: memory of {} events of {bytes} bytes", args.events));
        memory.row(events(bench, bytes).await?);
    }
    progress(&format!("redis: memory of {SESSIONS} idle sessions"));
    let mut sessions = Table::new(
        "Memory of sessions that hold one ended run of one event of 20 bytes.",
        &["sessions", "bytes per session", "log", "meta", "tomb", "run"],
    );
    sessions.row(idle_sessions(bench).await?);
    Ok(Report {
        name: "redis",
        question: "What keeping sessions costs a Redis server of its own.".into(),
        settings: json!({
            "rate_per_run": args.rate, "runs": many, "data_bytes": args.bytes, "seconds": args.seconds,
            "idle_seconds": IDLE.as_secs(), "events_in_memory": args.events, "readers": "one WebSocket per run",
        }),
        tables: vec![cost, idle, memory, sessions],
        notes: vec![
            "CPU is what the server itself says (`used_cpu_user` and `used_cpu_sys`), requests and commands are its `commandstats`, bytes its `total_net_input_bytes` and `total_net_output_bytes`. An event is an `XADD`. What is not in scripts is the network, the pushes and waking up: a server that has little to do pays for each request anew.".into(),
            "A request is one command of a client; a script is one request, whatever it calls. The pushes to the sidecar, which follows every session, are in the bytes sent.".into(),
            "Memory is the difference of `used_memory` before and after; `of it in the stream` is `MEMORY USAGE` of the log alone.".into(),
            "These figures are the server's, so they hold whatever build of Sidestream asks; how many events come with a script depends on how fast it asks.".into(),
        ],
    })
}

/// What the server does for an idle sidecar, and what under load.
async fn load(bench: &Bench, pace: Pace) -> anyhow::Result<(Done, Done)> {
    let args = &bench.args;
    let sidecar = Sidecar::start(Store::Redis, bench).await?;
    let mut server = connect(&sidecar).await?;
    sleep(SETTLE).await;
    let nothing = during(&mut server, IDLE).await?;
    let window = Duration::from_secs(args.seconds);
    let streaming = 2 * SETTLE + window;
    let events = (args.rate * streaming.as_secs_f64()).ceil() as u64;
    let mut readers = JoinSet::new();
    for i in 0..pace.runs {
        let interval = Duration::from_secs_f64(pace.burst as f64 / args.rate);
        let phase = interval.mul_f64((i as f64 * 0.618_034).fract());
        let load = Load { events, rate: args.rate, bytes: args.bytes, burst: pace.burst, phase };
        latency::start(sidecar.address, Some(Audience::Subscriber), i, load, &mut readers).await?;
    }
    sleep(SETTLE).await;
    let done = during(&mut server, window).await?;
    timeout(2 * streaming, readers.join_all()).await.context("the readers have not ended")?;
    Ok((nothing, done))
}

async fn during(server: &mut MultiplexedConnection, time: Duration) -> anyhow::Result<Done> {
    let (before, begun) = (Done::of(&info(server).await?)?, Instant::now());
    sleep(time).await;
    let after = Done::of(&info(server).await?)?;
    Ok(Done { seconds: begun.elapsed().as_secs_f64(), ..after.since(before) })
}

async fn events(bench: &Bench, bytes: usize) -> anyhow::Result<[Cell; 5]> {
    let sidecar = Sidecar::start(Store::Redis, bench).await?;
    let mut server = connect(&sidecar).await?;
    sleep(SETTLE).await;
    let before = used_memory(&mut server).await?;
    let events = bench.args.events;
    write(&sidecar, "bench-0", events, bytes).await?;
    sleep(SETTLE).await;
    let held = (used_memory(&mut server).await? - before) / events as f64;
    let log = usage(&mut server, "ss:{default:bench-0}:log").await? / events as f64;
    Ok([
        Cell::count(bytes as u64),
        Cell::count(events),
        Cell::number(held, 0),
        Cell::number(log, 0),
        Cell::number(held - bytes as f64, 0),
    ])
}

async fn idle_sessions(bench: &Bench) -> anyhow::Result<[Cell; 6]> {
    let sidecar = Sidecar::start(Store::Redis, bench).await?;
    let mut server = connect(&sidecar).await?;
    write(&sidecar, "first", 1, 20).await?;
    sleep(SETTLE).await;
    let before = used_memory(&mut server).await?;
    for i in 0..SESSIONS {
        write(&sidecar, &format!("bench-{i}"), 1, 20).await?;
    }
    sleep(SETTLE).await;
    let held = (used_memory(&mut server).await? - before) / SESSIONS as f64;
    let mut of = async |pattern: &str| -> anyhow::Result<Cell> {
        let keys: Vec<String> = ::redis::cmd("KEYS").arg(pattern).query_async(&mut server).await?;
        let mut all = 0.0;
        for key in &keys {
            all += usage(&mut server, key).await?;
        }
        Ok(Cell::number(all / keys.len().max(1) as f64, 0))
    };
    Ok([
        Cell::count(SESSIONS as u64),
        Cell::number(held, 0),
        of("ss:{default:bench-*}:log").await?,
        of("ss:{default:bench-*}:meta").await?,
        of("ss:{default:bench-*}:tomb").await?,
        of("ss:run:*").await?,
    ])
}

/// Writes a session of one run, as fast as it is taken, and reads it to its end.
async fn write(sidecar: &Sidecar, session: &str, events: u64, bytes: usize) -> anyhow::Result<()> {
    let load = Load { events, rate: 0.0, bytes, burst: 1, phase: Duration::ZERO };
    let mut answer = sse::post(sidecar.address, &load.path(), Some(session)).await?;
    while answer.blocks(|_| {}).await? {}
    Ok(())
}

impl Done {
    /// What `INFO` says.
    fn of(info: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let number = |name: &str| -> anyhow::Result<f64> {
            info.get(name).and_then(|text| text.parse().ok()).with_context(|| format!("INFO has no {name}"))
        };
        let calls = |command: &str| -> f64 {
            let stats = info.get(&format!("cmdstat_{command}"));
            stats.and_then(|stats| stats.strip_prefix("calls=")?.split(',').next()?.parse().ok()).unwrap_or(0.0)
        };
        // What a client of ours sends beside scripts; everything else is called by scripts.
        let sent = ["evalsha", "ping", "subscribe", "unsubscribe", "multi", "exec", "script|load"];
        let all: f64 = info.keys().filter_map(|name| name.strip_prefix("cmdstat_")).map(calls).sum();
        let requests = sent.into_iter().map(calls).sum::<f64>();
        Ok(Done {
            cpu: number("used_cpu_user")? + number("used_cpu_sys")?,
            running: running(info) / 1e6,
            events: calls("xadd"),
            scripts: calls("evalsha"),
            requests,
            inner: all - requests - calls("info"),
            received: number("total_net_input_bytes")?,
            sent: number("total_net_output_bytes")?,
            seconds: 0.0,
        })
    }

    fn map(self, other: Done, with: impl Fn(f64, f64) -> f64) -> Self {
        Done {
            cpu: with(self.cpu, other.cpu),
            running: with(self.running, other.running),
            events: with(self.events, other.events),
            scripts: with(self.scripts, other.scripts),
            requests: with(self.requests, other.requests),
            inner: with(self.inner, other.inner),
            received: with(self.received, other.received),
            sent: with(self.sent, other.sent),
            seconds: self.seconds,
        }
    }

    fn since(self, before: Done) -> Self {
        self.map(before, |after, before| after - before)
    }

    /// Without what is done for an idle sidecar in the same time.
    fn less(self, idle: Done) -> Self {
        let share = self.seconds / idle.seconds;
        self.map(idle, |all, idle| all - idle * share)
    }

    fn per_event(self, load: &str) -> [Cell; 9] {
        let each = |value: f64, decimals| Cell::number(value / self.events, decimals);
        [
            Cell::text(load),
            Cell::count((self.events / self.seconds) as u64),
            Cell::number(self.events / self.scripts, 2),
            each(self.cpu * 1e6, 1),
            each(self.running * 1e6, 1),
            each(self.requests, 2),
            each(self.inner, 2),
            each(self.received, 0),
            each(self.sent, 0),
        ]
    }

    fn per_second(self) -> [Cell; 6] {
        let each = |value: f64, decimals| Cell::number(value / self.seconds, decimals);
        [
            Cell::count(1),
            each(self.cpu * 1e6, 0),
            each(self.requests, 1),
            each(self.inner, 1),
            each(self.received, 0),
            each(self.sent, 0),
        ]
    }
}

/// Microseconds that scripts have run.
fn running(info: &BTreeMap<String, String>) -> f64 {
    let stats = info.get("cmdstat_evalsha").and_then(|stats| stats.split_once("usec=")?.1.split(',').next());
    stats.and_then(|usec| usec.parse().ok()).unwrap_or(0.0)
}

async fn connect(sidecar: &Sidecar) -> anyhow::Result<MultiplexedConnection> {
    Ok(::redis::Client::open(&*sidecar.store)?.get_multiplexed_async_connection().await?)
}

async fn info(server: &mut MultiplexedConnection) -> anyhow::Result<BTreeMap<String, String>> {
    let text: String = ::redis::cmd("INFO").arg("all").query_async(server).await?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

async fn used_memory(server: &mut MultiplexedConnection) -> anyhow::Result<f64> {
    let info = info(server).await?;
    info.get("used_memory").and_then(|text| text.parse().ok()).context("INFO has no used_memory")
}

async fn usage(server: &mut MultiplexedConnection, key: &str) -> anyhow::Result<f64> {
    let bytes: Option<u64> =
        ::redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query_async(server).await?;
    Ok(bytes.with_context(|| format!("there is no {key}"))? as f64)
}
