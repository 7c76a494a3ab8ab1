//! How long until everybody knows that the owner of their runs has died.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::clock::now_ns;
use crate::report::{Cell, Report, Table};
use crate::scene::Scene;
use crate::servers::Store;
use crate::tally::{Total, quantile_ms};
use crate::{Bench, progress};

/// The owner lives for so long, and the other instance: it has to have seen that the store is steady.
const WARM_UP: Duration = Duration::from_secs(10);

/// How long the ends may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The promise, with the default lease, where another instance lives.
const PROMISE_MS: f64 = 5000.0;

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Report> {
    let (runs, rounds) = (bench.args.active, bench.args.rounds);
    let mut took = Vec::new();
    let (mut missing, mut twice, mut otherwise, mut events) = (0, 0, 0, Total::default());
    let (mut first, mut spread) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        progress(&format!("takeover, round {round} of {rounds}"));
        // Both devices are at the instance that lives on.
        let mut scene = Scene::start(bench, Store::Redis, [1, 1], runs).await?;
        sleep(WARM_UP).await;
        let killed = now_ns();
        scene.deployment.instances[0].process.kill();
        let (seen, _) = scene.end(runs, PATIENCE).await?;
        let mut of_round: Vec<u64> = Vec::new();
        for device in seen.into_iter().flatten() {
            match device.terminals.first() {
                Some((at, _)) => of_round.push(at.saturating_sub(killed)),
                None => missing += 1,
            }
            twice += u64::from(device.terminals.len() > 1);
            otherwise += device.terminals.iter().filter(|(_, state)| *state != "interrupted").count() as u64;
            events.merge(Total::of([device.tally]));
        }
        of_round.sort_unstable();
        if let (Some(min), Some(max)) = (of_round.first(), of_round.last()) {
            first.push(*min);
            spread.push(max - min);
        }
        took.extend(of_round);
    }
    took.sort_unstable();
    first.sort_unstable();
    spread.sort_unstable();
    let mut table = Table::new(
        "From `kill -9` of the owner until `interrupted` is read, on every device of every run, milliseconds.",
        &["way", "runs", "ends", "p50", "p90", "p99", "max", "promised max", "first", "first to last"],
    );
    table.row([
        Cell::text("Redis, another instance lives"),
        Cell::count(runs as u64),
        Cell::count(took.len() as u64),
        Cell::number(quantile_ms(&took, 0.5), 0),
        Cell::number(quantile_ms(&took, 0.9), 0),
        Cell::number(quantile_ms(&took, 0.99), 0),
        Cell::number(quantile_ms(&took, 1.0), 0),
        Cell::number(PROMISE_MS, 0),
        Cell::number(quantile_ms(&first, 0.0), 0),
        Cell::number(quantile_ms(&spread, 1.0), 0),
    ]);
    let mut checks = Table::new(
        "What was checked: every event that the log has, and every terminal, on both devices of every run.",
        &[
            "way",
            "terminals missing",
            "terminals twice",
            "not interrupted",
            "events checked",
            "lost",
            "duplicates",
            "out of order",
        ],
    );
    checks.row([
        Cell::text("Redis, another instance lives"),
        Cell::count(missing),
        Cell::count(twice),
        Cell::count(otherwise),
        Cell::count(events.expected),
        Cell::count(events.lost),
        Cell::count(events.duplicates),
        Cell::count(events.disordered),
    ]);
    Ok(Report {
        name: "takeover",
        question: format!("How long until the clients of {runs} runs know that the owner of all of them was killed."),
        settings: json!({
            "runs": runs, "rounds": rounds, "seconds_before_the_kill": WARM_UP.as_secs(), "lease": "3s, the default",
            "ms_between_events_of_a_run": bench.args.every.as_millis(), "sessions": "one for each run, with two devices",
        }),
        tables: vec![table, checks],
        notes: vec![
            "`ends` counts devices. `first`: the earliest of all; `first to last`: the longest of a round.".into(),
            "The events of a run are those that its terminal counts; what the upstream had sent and the owner had not stored when it was killed is not among them.".into(),
        ],
    })
}
