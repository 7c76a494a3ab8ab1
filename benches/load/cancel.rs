//! How long a Stop takes: from the device that asks to the closed upstream, the answer, and the end on
//! all devices.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::report::{Cell, Report, Table};
use crate::scene::{Places, Scene, Watched};
use crate::servers::{Store, Used};
use crate::tally::{Total, quantile_ms};
use crate::upstream::Upstream;
use crate::{Bench, machine, progress};

/// Between the start of the last run and the first cancel.
const WARM_UP: Duration = Duration::from_secs(2);

/// Between two cancels, each of which is measured for itself.
const BETWEEN: Duration = Duration::from_millis(25);

/// How long the ends may take after the last cancel.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a way has shown in all rounds.
#[derive(Default)]
struct Shown {
    closed: Vec<u64>,
    acked: Vec<u64>,
    on_all: Vec<u64>,
    asked: u64,
    never_closed: u64,
    missing: u64,
    twice: u64,
    otherwise: u64,
    events: Total,
    used: Used,
    seconds: f64,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Report> {
    let mut ways: Vec<(Store, Places, &str)> = Vec::new();
    for store in &bench.args.stores {
        ways.push((*store, [0, 0], "same instance"));
        if *store == Store::Redis {
            ways.push((*store, [0, 1], "other instance"));
        }
    }
    let mut shown: Vec<Shown> = ways.iter().map(|_| Shown::default()).collect();
    for round in 1..=bench.args.rounds {
        for ((store, places, name), shown) in ways.iter().zip(&mut shown) {
            progress(&format!("cancel, round {round} of {}: {}, {name}", bench.args.rounds, store.name()));
            phase(bench, *store, *places, shown).await.with_context(|| format!("{}, {name}", store.name()))?;
        }
    }
    let mut times = Table::new(
        "From right before the cancel is written, milliseconds.",
        &["way", "until", "cancels", "p50", "p90", "p99", "max", "aim p99"],
    );
    let mut checks = Table::new(
        "What was checked: every event of every cancelled run on both devices, and every terminal.",
        &[
            "way",
            "cancels",
            "upstream never closed",
            "terminals missing",
            "terminals twice",
            "not cancelled",
            "events checked",
            "lost",
            "duplicates",
            "out of order",
            "sidecars' core busy %",
            "others, % of machine",
        ],
    );
    for ((store, _, name), shown) in ways.iter().zip(&mut shown) {
        let way = format!("{}, {name}", store.name());
        let rows: [(&str, &mut Vec<u64>, Cell); 3] = [
            ("upstream closed", &mut shown.closed, Cell::number(50.0, 0)),
            ("acknowledged", &mut shown.acked, Cell::none()),
            ("terminal on both devices", &mut shown.on_all, Cell::number(100.0, 0)),
        ];
        for (until, took, aim) in rows {
            took.sort_unstable();
            times.row([
                Cell::text(way.clone()),
                Cell::text(until),
                Cell::count(took.len() as u64),
                Cell::number(quantile_ms(took, 0.5), 2),
                Cell::number(quantile_ms(took, 0.9), 2),
                Cell::number(quantile_ms(took, 0.99), 2),
                Cell::number(quantile_ms(took, 1.0), 2),
                aim,
            ]);
        }
        let used = &shown.used;
        checks.row([
            Cell::text(way),
            Cell::count(shown.asked),
            Cell::count(shown.never_closed),
            Cell::count(shown.missing),
            Cell::count(shown.twice),
            Cell::count(shown.otherwise),
            Cell::count(shown.events.expected),
            Cell::count(shown.events.lost),
            Cell::count(shown.events.duplicates),
            Cell::count(shown.events.disordered),
            Cell::number(100.0 * (used.sidecar + used.redis) / shown.seconds, 0),
            Cell::number(100.0 * used.others() / (shown.seconds * machine::processors() as f64), 0),
        ]);
    }
    let (active, cancels) = (bench.args.active, bench.args.cancels);
    Ok(Report {
        name: "cancel",
        question: format!("How long a Stop takes while at least {active} runs are active."),
        settings: json!({
            "active_runs": active, "cancels_per_round": cancels, "rounds": bench.args.rounds,
            "ms_between_cancels": BETWEEN.as_millis(), "ms_between_events_of_a_run": bench.args.every.as_millis(),
            "sessions": "one for each run, with two devices",
        }),
        tables: vec![times, checks],
        notes: vec![
            format!("Each round begins with {} runs and cancels {cancels} of them, one after the other; the others go on.", active + cancels),
            "All runs are driven by one instance. `same instance`: both devices are there, and one of them cancels. `other instance`: the device that cancels is at another one; the first is at the owner's.".into(),
            "The upstream is in the load's own process: it sees its connection end by the same clock, and by the same event loop, that the devices are read with.".into(),
        ],
    })
}

async fn phase(bench: &Bench, store: Store, places: Places, shown: &mut Shown) -> anyhow::Result<()> {
    let (active, cancels) = (bench.args.active, bench.args.cancels);
    let mut scene = Scene::start(bench, store, places, active + cancels).await?;
    sleep(WARM_UP).await;
    let (before, begun) = (scene.deployment.used()?, Instant::now());
    for i in 0..cancels {
        sleep_until(begun + BETWEEN * i as u32).await;
        scene.cancel(i);
    }
    shown.used = shown.used.plus(scene.deployment.used()?.since(before));
    shown.seconds += begun.elapsed().as_secs_f64();
    let (seen, upstream) = scene.end(cancels, PATIENCE).await?;
    for (i, devices) in seen.into_iter().take(cancels).enumerate() {
        shown.take(i, devices, &upstream);
    }
    Ok(())
}

impl Shown {
    fn take(&mut self, i: usize, devices: [Watched; 2], upstream: &Upstream) {
        self.asked += 1;
        let asked = devices[1].asked_ns.unwrap_or(u64::MAX);
        match upstream.closed_ns(i) {
            Some(closed) => self.closed.push(closed.saturating_sub(asked)),
            None => self.never_closed += 1,
        }
        self.acked.extend(devices[1].acked_ns.map(|acked| acked.saturating_sub(asked)));
        let ends: Vec<u64> = devices.iter().filter_map(|device| Some(device.terminals.first()?.0)).collect();
        self.missing += (devices.len() - ends.len()) as u64;
        if let (true, Some(last)) = (ends.len() == devices.len(), ends.iter().max()) {
            self.on_all.push(last.saturating_sub(asked));
        }
        for device in devices {
            self.twice += u64::from(device.terminals.len() > 1);
            self.otherwise += device.terminals.iter().filter(|(_, state)| *state != "cancelled").count() as u64;
            self.events.merge(Total::of([device.tally]));
        }
    }
}
