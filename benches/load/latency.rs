//! Added latency of an event, from the backend's write to the reader, and what an event costs.
//!
//! The floor is the same load read from the backend itself, in the same round: "added" is the
//! difference of the two distributions at a quantile.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backend::Load;
use crate::clock::now_ns;
use crate::report::{Cell, Report, Table};
use crate::servers::{Backend, Sidecar, Store, Used};
use crate::tally::{Tally, Total, quantile_ms};
use crate::{Bench, machine, progress, sse, websocket};

/// Between the start of the last run and the first measured event.
const WARM_UP: Duration = Duration::from_secs(3);

/// Runs start spread over this time, so that they do not tick together.
const RAMP: Duration = Duration::from_secs(1);

/// How long readers may take for what is left after the last event was due.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who reads a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Audience {
    /// One WebSocket; the HTTP caller has left after the answer's head.
    Subscriber,
    /// The HTTP caller alone.
    Caller,
    /// Both.
    Both,
}

/// A way that events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Through(Store, Audience),
}

/// What a way has shown in all rounds.
#[derive(Default)]
struct Shown {
    websocket: Seen,
    caller: Seen,
    published: u64,
    used: Used,
    rss_kib: u64,
}

/// What the readers of one kind have seen.
#[derive(Default)]
struct Seen {
    latencies: Vec<u64>,
    expected: u64,
    lost: u64,
    duplicates: u64,
    disordered: u64,
}

/// One reader's stream, read to its end.
pub(crate) struct Heard {
    websocket: bool,
    tally: Tally,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Report> {
    let args = &bench.args;
    let through =
        args.stores.iter().flat_map(|store| args.audience.iter().map(|audience| Way::Through(*store, *audience)));
    let ways: Vec<Way> = [Way::Direct].into_iter().chain(through).collect();
    let mut shown: Vec<Shown> = ways.iter().map(|_| Shown::default()).collect();
    for round in 1..=args.rounds {
        for (way, shown) in ways.iter().zip(&mut shown) {
            progress(&format!("latency, round {round} of {}: {}", args.rounds, way.words()));
            phase(bench, *way, shown).await.with_context(|| way.words())?;
        }
    }
    shown
        .iter_mut()
        .flat_map(|shown| [&mut shown.websocket, &mut shown.caller])
        .for_each(|s| s.latencies.sort_unstable());
    Ok(report(bench, &ways, &shown))
}

impl Way {
    fn words(self) -> String {
        match self {
            Way::Direct => "direct, no sidecar".into(),
            Way::Through(store, audience) => {
                let audience = match audience {
                    Audience::Subscriber => "subscriber",
                    Audience::Caller => "caller",
                    Audience::Both => "subscriber and caller",
                };
                format!("{}, {audience}", store.name())
            }
        }
    }
}

/// All runs once, from their start to their end.
async fn phase(bench: &Bench, way: Way, shown: &mut Shown) -> anyhow::Result<()> {
    match way {
        Way::Direct => {
            let backend = Backend::start(bench.cores).await?;
            load(bench, backend.address, None, || backend.used(), shown).await
        }
        Way::Through(store, audience) => {
            let sidecar = Sidecar::start(store, bench).await?;
            load(bench, sidecar.address, Some(audience), || sidecar.used(), shown).await?;
            shown.rss_kib = shown.rss_kib.max(sidecar.rss_kib()?);
            Ok(())
        }
    }
}

async fn load(
    bench: &Bench,
    address: SocketAddr,
    audience: Option<Audience>,
    used: impl Fn() -> anyhow::Result<Used>,
    shown: &mut Shown,
) -> anyhow::Result<()> {
    let args = &bench.args;
    let (window, slack) = (Duration::from_secs(args.seconds), Duration::from_secs(1));
    let streaming = 2 * RAMP + WARM_UP + window + slack;
    let events = (args.rate * streaming.as_secs_f64()).ceil() as u64;
    let begun = Instant::now();
    let mut readers = JoinSet::new();
    for i in 0..args.runs {
        sleep_until(begun + RAMP.mul_f64(i as f64 / args.runs as f64)).await;
        // A different phase for each, whatever the grain of the timer that started it.
        let interval = Duration::from_secs_f64(args.burst as f64 / args.rate);
        let phase = interval.mul_f64((i as f64 * 0.618_034).fract());
        let load = Load { events, rate: args.rate, bytes: args.bytes, burst: args.burst, phase };
        start(address, audience, i, load, &mut readers).await?;
    }
    let ready = Instant::now();
    sleep_until(ready + WARM_UP).await;
    let (before, from_ns) = (used()?, now_ns());
    sleep(window).await;
    let (after, to_ns) = (used()?, now_ns());

    let limit = begun + streaming + PATIENCE;
    let mut heard = Vec::new();
    while let Ok(Some(reader)) = timeout(limit.saturating_duration_since(Instant::now()), readers.join_next()).await {
        heard.push(reader??);
    }
    let kept = heard.len();
    let (websockets, callers): (Vec<Heard>, Vec<Heard>) = heard.into_iter().partition(|heard| heard.websocket);
    let published = shown.published;
    for (seen, heard) in [(&mut shown.websocket, websockets), (&mut shown.caller, callers)] {
        let total = Total::of(heard.into_iter().map(|heard| heard.tally));
        let latencies = total.latencies(from_ns, to_ns);
        shown.published = shown.published.max(published + latencies.len() as u64);
        seen.take(&total, latencies);
    }
    if !readers.is_empty() {
        // A reader that never ended has lost what it was still waiting for.
        anyhow::bail!(
            "{} readers of {} had not ended {PATIENCE:?} after the last event",
            readers.len(),
            kept + readers.len()
        );
    }
    shown.used = shown.used.plus(after.since(before));
    Ok(())
}

/// Starts run `i` and those who read it.
pub(crate) async fn start(
    address: SocketAddr,
    audience: Option<Audience>,
    i: usize,
    load: Load,
    readers: &mut JoinSet<anyhow::Result<Heard>>,
) -> anyhow::Result<()> {
    let session = format!("bench-{i}");
    if matches!(audience, Some(Audience::Subscriber | Audience::Both)) {
        let mut socket = websocket::connect(address, &format!("session={session}&after=start&create=1")).await?;
        readers.spawn(async move {
            let mut tally = Tally::new(load.events);
            let mut over = false;
            while !over {
                let mut at = None;
                let open = socket.messages(|message| {
                    let at = *at.get_or_insert_with(now_ns);
                    if message.starts_with(b"{\"type\":\"event\"") {
                        tally.event(message, at);
                    } else if message.starts_with(b"{\"type\":\"run\"") {
                        over = memchr::memmem::find(message, b"\"state\":\"completed\"").is_some();
                    }
                });
                anyhow::ensure!(open.await?, "the server closed the WebSocket");
            }
            Ok(Heard { websocket: true, tally })
        });
    }
    let named = audience.map(|_| session.as_str());
    let mut answer = sse::post(address, &load.path(), named).await?;
    if audience != Some(Audience::Subscriber) {
        readers.spawn(async move {
            let mut tally = Tally::new(load.events);
            loop {
                let mut at = None;
                let more = answer.blocks(|block| tally.event(block, *at.get_or_insert_with(now_ns))).await?;
                if !more {
                    return Ok(Heard { websocket: false, tally });
                }
            }
        });
    }
    Ok(())
}

impl Seen {
    fn take(&mut self, total: &Total, latencies: Vec<u64>) {
        self.latencies.extend(latencies);
        self.expected += total.expected;
        self.lost += total.lost;
        self.duplicates += total.duplicates;
        self.disordered += total.disordered;
    }
}

fn report(bench: &Bench, ways: &[Way], shown: &[Shown]) -> Report {
    let args = &bench.args;
    let seconds = (args.seconds * args.rounds as u64) as f64;
    let floor = &shown[0].caller.latencies;
    let mut latency = Table::new(
        "Latency from the backend's write to the reader, milliseconds; added: less the same quantile of the direct way.",
        &[
            "way",
            "read by",
            "events",
            "events/s",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "added p50",
            "added p99",
            "checked",
            "lost",
            "duplicates",
            "out of order",
        ],
    );
    let mut cost = Table::new(
        "CPU seconds per million published events (s/M), and how busy the machine was meanwhile.",
        &[
            "way",
            "published",
            "deliveries per event",
            "sidecar s/M",
            "Redis s/M",
            "sidecar + Redis s/M",
            "backend s/M",
            "load s/M",
            "sidecar's core busy %",
            "others, % of machine",
            "sidecar RSS MiB",
        ],
    );
    for (way, shown) in ways.iter().zip(shown) {
        let name = way.words();
        for (reader, seen) in [("WebSocket", &shown.websocket), ("HTTP caller", &shown.caller)] {
            let at = |quantile| quantile_ms(&seen.latencies, quantile);
            let added = |quantile| match way {
                Way::Direct => Cell::none(),
                Way::Through(..) => Cell::number(at(quantile) - quantile_ms(floor, quantile), 2),
            };
            if seen.expected == 0 {
                continue;
            }
            latency.row([
                Cell::text(name.clone()),
                Cell::text(reader),
                Cell::count(seen.latencies.len() as u64),
                Cell::number(seen.latencies.len() as f64 / seconds, 0),
                Cell::number(at(0.5), 2),
                Cell::number(at(0.9), 2),
                Cell::number(at(0.99), 2),
                Cell::number(at(0.999), 2),
                Cell::number(at(1.0), 2),
                added(0.5),
                added(0.99),
                Cell::count(seen.expected),
                Cell::count(seen.lost),
                Cell::count(seen.duplicates),
                Cell::count(seen.disordered),
            ]);
        }
        let per_million = |cpu: f64| cpu * 1e6 / shown.published as f64;
        let through = |cell: Cell| if *way == Way::Direct { Cell::none() } else { cell };
        let redis = |cell: Cell| if matches!(way, Way::Through(Store::Redis, _)) { cell } else { Cell::none() };
        let used = &shown.used;
        let deliveries = (shown.websocket.latencies.len() + shown.caller.latencies.len()) as f64;
        cost.row([
            Cell::text(name),
            Cell::count(shown.published),
            Cell::number(deliveries / shown.published as f64, 2),
            through(Cell::number(per_million(used.sidecar), 1)),
            redis(Cell::number(per_million(used.redis), 1)),
            through(Cell::number(per_million(used.sidecar + used.redis), 1)),
            Cell::number(per_million(used.backend), 1),
            Cell::number(per_million(used.load), 1),
            through(Cell::number(100.0 * (used.sidecar + used.redis) / seconds, 0)),
            Cell::number(100.0 * used.others() / (seconds * machine::processors() as f64), 0),
            through(Cell::number(shown.rss_kib as f64 / 1024.0, 1)),
        ]);
    }
    Report {
        name: "latency",
        question: format!(
            "What the sidecar adds to an event's way at {} runs x {} events/s = {} events/s, and what it costs.",
            args.runs,
            args.rate,
            args.runs as f64 * args.rate,
        ),
        settings: json!({
            "runs": args.runs, "events_per_second_and_run": args.rate, "events_per_write": args.burst,
            "data_bytes": args.bytes, "seconds_measured_per_round": args.seconds, "rounds": args.rounds,
            "sessions": "one for each run", "warm_up_seconds": WARM_UP.as_secs(),
        }),
        tables: vec![latency, cost],
        notes: vec![
            "Each event carries the time right before the backend's write; it is read off when the reader's read returns. One clock, the machine's.".into(),
            "`subscriber`: one WebSocket per run, attached before the run; the HTTP caller left after the answer's head. `caller`: only the HTTP caller, through the sidecar. Every entry is in the store before anybody sees it.".into(),
            "`checked` counts every event of every run from its start to its end, not only the measured window; lost, duplicates and out of order are over all of them.".into(),
            "CPU is utime + stime of /proc/PID/stat over the window.".into(),
        ],
    }
}
