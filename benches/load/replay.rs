//! How fast a stored session is read: by one client, and by many at once.
//!
//! The sidecar shares what it has read from the store between readers for a while; so a session is
//! replayed `cold`, when nobody has read it before, and `again`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::backend::Load;
use crate::clock::now_ns;
use crate::report::{Cell, Report, Table};
use crate::servers::{Backend, Sidecar, Store, Used};
use crate::tally::{Tally, Total};
use crate::{Bench, machine, progress, sse, websocket};

/// How many sessions are read, one after the other.
const SESSIONS: usize = 8;

/// How long the replays of one session may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Replays of all sessions.
#[derive(Default)]
struct Replays {
    total: Total,
    /// For each session, how long its readers took together, seconds.
    took: Vec<f64>,
    used: Used,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Report> {
    let (events, clients) = (bench.args.events, bench.args.clients);
    let mut table = Table::new(
        "Replay from the start of a session to its last event. Rate: over all clients; median of the sessions.",
        &[
            "read from",
            "clients at once",
            "sessions",
            "events/s",
            "ms per session",
            "slowest ms",
            "sidecar s/M",
            "Redis s/M",
            "backend s/M",
            "load s/M",
            "others, % of machine",
            "sidecar RSS MiB",
            "checked",
            "lost",
            "duplicates",
            "out of order",
        ],
    );
    for clients in [1, clients] {
        progress(&format!("replay: direct, {clients} at once"));
        let backend = Backend::start(bench.cores).await?;
        let load = load(bench);
        let replays = replays(events, clients, || backend.used(), |_| direct(backend.address, load)).await?;
        table.row(row("direct, no sidecar", clients, &replays, None));
    }
    for store in &bench.args.stores {
        progress(&format!("replay: {}, writing {} sessions", store.name(), 2 * SESSIONS));
        let sidecar = Sidecar::start(*store, bench).await?;
        for i in 0..2 * SESSIONS {
            write(sidecar.address, &format!("bench-{i}"), load(bench)).await?;
        }
        for (kind, clients, first) in
            [("cold", 1, 0), ("again", 1, 0), ("cold", clients, SESSIONS), ("again", clients, SESSIONS)]
        {
            progress(&format!("replay: {}, {clients} at once, {kind}", store.name()));
            let one = |i| attached(sidecar.address, format!("bench-{}", first + i), events);
            let replays = replays(events, clients, || sidecar.used(), one).await?;
            let name = format!("{}, {kind}", store.name());
            table.row(row(&name, clients, &replays, Some((*store, sidecar.rss_kib()?))));
        }
    }
    Ok(Report {
        name: "replay",
        question: format!("How fast a session of {events} events is replayed over WebSocket, by one client and by {clients} at once."),
        settings: json!({
            "events_per_session": events, "data_bytes": bench.args.bytes, "clients": clients, "sessions": SESSIONS,
        }),
        tables: vec![table],
        notes: vec![
            "Time runs from before the connection is made until the last event was read by the last client. `cold`: nobody has read the session before; `again`: the same sessions right afterwards.".into(),
            "`direct` is the backend itself, making the same events as fast as they are read, one to a write.".into(),
            "s/M: CPU seconds per million delivered events. One client at a time uses little CPU in all; its s/M is coarse (steps of 10 ms).".into(),
        ],
    })
}

fn load(bench: &Bench) -> Load {
    Load { events: bench.args.events, rate: 0.0, bytes: bench.args.bytes, burst: 1, phase: Duration::ZERO }
}

/// `clients` at once on each of the sessions, one session after the other.
async fn replays<F>(
    events: u64,
    clients: usize,
    used: impl Fn() -> anyhow::Result<Used>,
    one: impl Fn(usize) -> F,
) -> anyhow::Result<Replays>
where
    F: Future<Output = anyhow::Result<Tally>> + Send + 'static,
{
    let mut replays = Replays::default();
    let before = used()?;
    for i in 0..SESSIONS {
        let begun = Instant::now();
        let mut reading = JoinSet::new();
        (0..clients).for_each(|_| {
            reading.spawn(one(i));
        });
        let tallies = timeout(PATIENCE, reading.join_all()).await.context("a replay did not end")?;
        replays.took.push(begun.elapsed().as_secs_f64());
        let tallies = tallies.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let part = Total::of(tallies);
        debug_assert_eq!(part.expected, events * clients as u64);
        replays.total.merge(part);
    }
    replays.used = used()?.since(before);
    replays.took.sort_unstable_by(f64::total_cmp);
    Ok(replays)
}

fn row(from: &str, clients: usize, replays: &Replays, sidecar: Option<(Store, u64)>) -> [Cell; 16] {
    let Replays { total, took, used } = replays;
    let delivered = total.expected - total.lost;
    let median = took[took.len() / 2];
    let per_million = |cpu: f64| Cell::number(cpu * 1e6 / delivered as f64, 2);
    let redis = matches!(sidecar, Some((Store::Redis, _)));
    [
        Cell::text(from),
        Cell::count(clients as u64),
        Cell::count(took.len() as u64),
        Cell::count((delivered as f64 / took.len() as f64 / median) as u64),
        Cell::number(median * 1e3, 1),
        Cell::number(took.last().copied().unwrap_or(f64::NAN) * 1e3, 1),
        if sidecar.is_some() { per_million(used.sidecar) } else { Cell::none() },
        if redis { per_million(used.redis) } else { Cell::none() },
        per_million(used.backend),
        per_million(used.load),
        Cell::number(100.0 * used.others() / (took.iter().sum::<f64>() * machine::processors() as f64), 0),
        sidecar.map_or_else(Cell::none, |(_, kib)| Cell::number(kib as f64 / 1024.0, 1)),
        Cell::count(total.expected),
        Cell::count(total.lost),
        Cell::count(total.duplicates),
        Cell::count(total.disordered),
    ]
}

/// Writes a session: one run, read to its end.
async fn write(address: SocketAddr, session: &str, load: Load) -> anyhow::Result<()> {
    let mut answer = sse::post(address, &load.path(), Some(session)).await?;
    while answer.blocks(|_| {}).await? {}
    Ok(())
}

async fn direct(address: SocketAddr, load: Load) -> anyhow::Result<Tally> {
    let mut tally = Tally::new(load.events);
    let mut answer = sse::post(address, &load.path(), None).await?;
    loop {
        let mut at = None;
        if !answer.blocks(|block| tally.event(block, *at.get_or_insert_with(now_ns))).await? {
            return Ok(tally);
        }
    }
}

async fn attached(address: SocketAddr, session: String, events: u64) -> anyhow::Result<Tally> {
    let mut tally = Tally::new(events);
    let mut socket = websocket::connect(address, &format!("session={session}&after=start")).await?;
    let mut live = false;
    while !live {
        let mut at = None;
        let open = socket.messages(|message| {
            if message.starts_with(b"{\"type\":\"event\"") {
                tally.event(message, *at.get_or_insert_with(now_ns));
            }
            live |= message.starts_with(b"{\"type\":\"live\"");
        });
        anyhow::ensure!(open.await?, "the server closed the WebSocket");
    }
    Ok(tally)
}
