//! What an idle WebSocket costs: resident memory, and CPU per second.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::backend::Load;
use crate::report::{Cell, Report, Table};
use crate::servers::{Sidecar, Store};
use crate::{Bench, progress, sse, websocket};

/// Sockets of a warm-up that are closed before the first look at the memory.
const WARM_UP: usize = 200;

/// How long memory may settle before it is read.
const SETTLE: Duration = Duration::from_secs(4);

/// Longer than a heartbeat (25 s), so that each socket was pinged once and each session checked.
const IDLE: Duration = Duration::from_secs(30);

/// How many connections are being made at once.
const CONNECTING: usize = 32;

/// Which sessions the sockets are attached to.
#[derive(Clone, Copy)]
enum Sessions {
    OneEach,
    Shared,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Report> {
    let mut table = Table::new(
        "Resident memory (VmRSS) and CPU of the sidecar.",
        &[
            "store",
            "sessions",
            "sockets",
            "before MiB",
            "all attached MiB",
            "KiB per socket",
            "after a heartbeat MiB",
            "KiB per socket then",
            "idle: sidecar µs/s per socket",
            "idle: Redis µs/s per socket",
            "closed by the server",
        ],
    );
    for store in &bench.args.stores {
        for sessions in [Sessions::OneEach, Sessions::Shared] {
            progress(&format!("memory: {}, {}", store.name(), sessions.words()));
            table.row(sockets(bench, *store, sessions).await?);
        }
    }
    let sockets = bench.args.sockets;
    Ok(Report {
        name: "memory",
        question: format!("What an idle WebSocket costs, at {sockets} of them over plain TCP, each attached to a session."),
        settings: json!({
            "sockets": sockets, "warm_up_sockets": WARM_UP, "settle_seconds": SETTLE.as_secs(),
            "idle_seconds": IDLE.as_secs(), "session": "one ended run of 3 events, replayed by the attach",
        }),
        tables: vec![table],
        notes: vec![
            format!("`before`: after all sessions were written and {WARM_UP} sockets had been opened and closed. KiB per socket: (VmRSS - before) / sockets. The kernel's socket buffers are not in it."),
            "`one each`: each socket follows a session of its own, so the session's state is in the figure. `shared`: all follow the same.".into(),
            "The load answers pings like a browser would; `closed by the server` should be 0.".into(),
        ],
    })
}

impl Sessions {
    fn words(self) -> &'static str {
        match self {
            Sessions::OneEach => "one each",
            Sessions::Shared => "shared",
        }
    }

    fn of(self, i: usize) -> String {
        match self {
            Sessions::OneEach => format!("bench-{i}"),
            Sessions::Shared => "bench-0".into(),
        }
    }
}

async fn sockets(bench: &Bench, store: Store, sessions: Sessions) -> anyhow::Result<[Cell; 11]> {
    let count = bench.args.sockets;
    let sidecar = Sidecar::start(store, bench).await?;
    let written = match sessions {
        Sessions::OneEach => count,
        Sessions::Shared => 1,
    };
    let load = Load { events: 3, rate: 0.0, bytes: bench.args.bytes, burst: 1, phase: Duration::ZERO };
    at_once(written, |i| write(sidecar.address, sessions.of(i), load)).await?;
    for batch in 0..2 {
        progress(&format!("warm-up {}", batch + 1));
        let warm = at_once(WARM_UP, |i| attach(sidecar.address, sessions.of(i % written))).await?;
        drop(warm);
        sleep(SETTLE / 2).await;
    }
    let before = sidecar.rss_kib()?;

    progress(&format!("attaching {count} sockets"));
    let open = at_once(count, |i| attach(sidecar.address, sessions.of(i))).await?;
    let mut reading = JoinSet::new();
    for mut socket in open {
        reading.spawn(async move { while socket.messages(|_| {}).await.unwrap_or(false) {} });
    }
    sleep(SETTLE).await;
    let attached = sidecar.rss_kib()?;
    progress(&format!("idle for {} s", IDLE.as_secs()));
    let used = sidecar.used()?;
    sleep(IDLE).await;
    let (used, later) = (sidecar.used()?.since(used), sidecar.rss_kib()?);
    let mut closed = 0;
    while reading.try_join_next().is_some() {
        closed += 1;
    }

    let mib = |kib: u64| Cell::number(kib as f64 / 1024.0, 1);
    let each = |kib: u64| Cell::number((kib as f64 - before as f64) / count as f64, 2);
    let idle = |cpu: f64| Cell::number(cpu * 1e6 / IDLE.as_secs_f64() / count as f64, 2);
    Ok([
        Cell::text(store.name()),
        Cell::text(sessions.words()),
        Cell::count(count as u64),
        mib(before),
        mib(attached),
        each(attached),
        mib(later),
        each(later),
        idle(used.sidecar),
        if sidecar.redis.is_some() { idle(used.redis) } else { Cell::none() },
        Cell::count(closed),
    ])
}

/// Does it for `0..count`, a few at once, in any order.
async fn at_once<T, F>(count: usize, each: impl Fn(usize) -> F) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let (mut done, mut running) = (Vec::with_capacity(count), JoinSet::new());
    for i in 0..count {
        if running.len() >= CONNECTING
            && let Some(one) = running.join_next().await
        {
            done.push(one??);
        }
        running.spawn(each(i));
    }
    while let Some(one) = running.join_next().await {
        done.push(one??);
    }
    Ok(done)
}

/// Writes a session: one run, read to its end.
async fn write(address: SocketAddr, session: String, load: Load) -> anyhow::Result<()> {
    let mut answer = sse::post(address, &load.path(), Some(&session)).await?;
    while answer.blocks(|_| {}).await? {}
    Ok(())
}

/// Attaches to the session and reads until it is live.
async fn attach(address: SocketAddr, session: String) -> anyhow::Result<websocket::WebSocket> {
    let attaching = async {
        let mut socket = websocket::connect(address, &format!("session={session}&after=start")).await?;
        let mut live = false;
        while !live {
            let open = socket.messages(|message| live |= message.starts_with(b"{\"type\":\"live\"")).await?;
            anyhow::ensure!(open, "the server closed the WebSocket");
        }
        Ok(socket)
    };
    timeout(Duration::from_secs(30), attaching).await.context("an attach took more than 30 s")?
}
