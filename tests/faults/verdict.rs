//! Whether what was promised was kept: agents, callers, subscribers and the log are held against each
//! other.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::agents;
use crate::caller::{Begun, Got};
use crate::deployed::Stored;
use crate::fault::Fault;
use crate::row::Row;
use crate::scene::Scene;
use crate::subscriber::{Entry, Subscriber, content};
use crate::support::within;

/// Within which time the runs of a sidecar that died have ended (product promise 3).
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// The same where the store was away as well: those who judge wait 7 s after it is back (ARCHITECTURE.md, "Who is dead").
const ENDED_WITHIN_OF_BOTH: Duration = Duration::from_secs(15);

/// How soon a subscriber knows of an event whose push was lost (known failure 1).
const STALL: Duration = Duration::from_secs(5);

/// How much later a busy machine may see it.
const SEEN_LATER: Duration = Duration::from_secs(1);

/// Within which time nothing is left of what has ended.
const TIDY_WITHIN: Duration = Duration::from_secs(15);

const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The terminals of a run in a log.
pub(crate) fn terminals<'a, 'b>(log: &'a [Stored], run: &'b str) -> impl Iterator<Item = &'a str> + use<'a, 'b> {
    of_run(log, run)
        .filter(|fields| field(fields, "kind") == Some("run"))
        .filter_map(|fields| field(fields, "event"))
        .filter(|state| matches!(*state, "completed" | "failed" | "cancelled" | "interrupted"))
}

/// Holds everything against everything.
pub(crate) async fn of(
    fault: &Fault,
    scene: &mut Scene,
    begun: Vec<Begun>,
    logs: &HashMap<String, Vec<Stored>>,
) -> Row {
    let mut row = Row { name: fault.name, ..Row::default() };
    for log in logs.values() {
        contiguous(&mut row, log);
    }
    let mut taken_back = HashSet::<u64>::new();
    for subscriber in &scene.subscribers {
        seen(&mut row, subscriber, &logs[&subscriber.session]);
        taken_back.extend(&subscriber.ledger().taken_back);
    }
    for stored in logs.values().flatten() {
        taken_back.remove(&entry(stored).content);
    }
    row.taken_back = taken_back.len() as u64;
    for mut run in begun {
        let log = &logs[&run.session];
        let dead = scene.sidecar_killed.is_some() && run.sidecar == 1;
        let ended = told(&mut row, scene, &run, log, dead);
        if dead && ended == Some("interrupted") {
            let within = if fault.spares_the_store() { ENDED_WITHIN } else { ENDED_WITHIN_OF_BOTH };
            after_its_owner(&mut row, scene, &run, within);
        }
        if let Some(caller) = run.caller.take()
            && !dead
        {
            let got = within("the end of a caller", caller).await.unwrap();
            let clean = ended == Some("completed");
            let whole = Got { events: scene.agents.said(&run.path), exact: true, clean };
            if got != whole {
                row.breach(|| format!("the caller of {} got {got:?}, not {whole:?}", run.path));
            }
        }
    }
    if row.taken_back > row.named && scene.sidecar_killed.is_none() {
        let taken_back = row.taken_back;
        row.breach(|| format!("{taken_back} events were taken back, and their owners live"));
    }
    if fault.leaves_a_server() && row.stall > STALL {
        let stall = row.stall;
        row.breach(|| format!("a subscriber waited {stall:?} for an event"));
    }
    afterwards(&mut row, scene).await;
    row
}

/// Sidecars that live are ready, and nothing is left behind.
async fn afterwards(row: &mut Row, scene: &mut Scene) {
    let begun = Instant::now();
    loop {
        let mut left = scene.store.left_over(&scene.sessions).await;
        for (i, sidecar) in scene.sidecars.iter_mut().enumerate() {
            if i == 1 && scene.sidecar_killed.is_some() {
                continue;
            }
            row.memory = row.memory.max(sidecar.process().peak_memory());
            let status = sidecar.health("/readyz").await.status;
            if status != 200 {
                left.push(format!("sidecar {i} is not ready: {status}"));
            }
        }
        if left.is_empty() {
            return;
        }
        if begun.elapsed() > TIDY_WITHIN {
            for left in left {
                row.breach(|| left);
            }
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn contiguous(row: &mut Row, log: &[Stored]) {
    for (before, after) in log.iter().zip(log.iter().skip(1)) {
        if after.0.seq != before.0.seq + 1 || after.0.ms < before.0.ms {
            row.breach(|| format!("in the log {} follows {}", after.0, before.0));
        }
    }
}

/// A subscriber's view is the log.
fn seen(row: &mut Row, subscriber: &Subscriber, log: &[Stored]) {
    let ledger = subscriber.ledger();
    row.delivered += ledger.delivered;
    row.duplicated += ledger.duplicated;
    row.lost += ledger.missed;
    row.gaps += ledger.gaps.values().sum::<u64>();
    row.stall = row.stall.max(ledger.stall);
    for breach in &ledger.wrong {
        row.breach(|| format!("{}: {breach}", subscriber.session));
    }
    let entries: Vec<Entry> = log.iter().map(entry).collect();
    if ledger.view != entries {
        let differs = ledger.view.iter().zip(&entries).position(|(seen, stored)| seen != stored);
        row.breach(|| {
            let (seen, stored) = (ledger.view.len(), entries.len());
            let at = differs.unwrap_or(seen.min(stored));
            let (saw, has) = (ledger.view.get(at), entries.get(at));
            format!(
                "{}: saw {seen} of {stored} entries, at {}; first at {at}: {saw:?}, not {has:?}",
                subscriber.session, ledger.at
            )
        });
    }
}

/// What everybody must see of it.
pub(crate) fn entry((offset, fields): &Stored) -> Entry {
    let kind = field(fields, "kind").unwrap_or("event");
    let data = field(fields, "data").filter(|_| kind == "event");
    Entry {
        offset: *offset,
        event: kind == "event",
        content: content(kind, field(fields, "run"), field(fields, "event"), data),
    }
}

/// A run's events are what its agent said, once each; it has one terminal, which is returned.
fn told<'a>(row: &mut Row, scene: &Scene, run: &Begun, log: &'a [Stored], dead: bool) -> Option<&'a str> {
    let (mut next, mut twice, mut named) = (1, 0, 0);
    for fields in of_run(log, &run.run) {
        match field(fields, "kind") {
            None => {
                row.written += 1;
                let value: Value = serde_json::from_str(field(fields, "data").unwrap()).unwrap();
                let n = value["n"].as_u64().unwrap();
                if field(fields, "data") != Some(&agents::data(&run.path, n)) {
                    row.breach(|| format!("{} did not say {value}", run.path));
                }
                if n < next {
                    twice += 1;
                    continue;
                }
                row.lost += n - next;
                next = n + 1;
            }
            Some("status") => {
                let lost: Value = serde_json::from_str(field(fields, "data").unwrap()).unwrap();
                if lost["code"] != "lost" {
                    continue;
                }
                named += lost["to_n"].as_u64().unwrap() + 1 - lost["from_n"].as_u64().unwrap();
            }
            Some(_) => {}
        }
    }
    row.duplicated += twice;
    row.named += named;
    row.lost -= named.min(row.lost);
    let all: Vec<&str> = terminals(log, &run.run).collect();
    let said = scene.agents.said(&run.path);
    match all[..] {
        ["interrupted"] if dead => row.interrupted += 1,
        // What its owner had read and not stored died with it; all others have all of it.
        ["completed"] => {
            if next <= said {
                row.lost += said + 1 - next;
                row.breach(|| format!("{} lacks {} of {said}", run.path, said + 1 - next));
            }
        }
        _ => row.breach(|| format!("{} in {} ended as {all:?}", run.path, run.session)),
    }
    all.first().copied()
}

/// Somebody saw in time that the run of a dead sidecar has ended.
fn after_its_owner(row: &mut Row, scene: &Scene, run: &Begun, within: Duration) {
    let killed = scene.sidecar_killed.unwrap();
    let readers = scene.subscribers.iter().filter(|subscriber| subscriber.session == run.session);
    let seen = readers.filter_map(|subscriber| subscriber.ledger().terminals.get(&run.run).copied()).min();
    match seen.map(|seen| seen - killed) {
        Some(after) => {
            row.ended_after = row.ended_after.max(Some(after));
            if after > within + SEEN_LATER {
                row.breach(|| format!("{} ended {after:?} after its owner", run.path));
            }
        }
        None => row.breach(|| format!("nobody saw the end of {}", run.path)),
    }
}

fn of_run<'a, 'b>(log: &'a [Stored], run: &'b str) -> impl Iterator<Item = &'a HashMap<String, String>> + use<'a, 'b> {
    log.iter().map(|(_, fields)| fields).filter(move |fields| field(fields, "run") == Some(run))
}

fn field<'a>(fields: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    fields.get(name).map(String::as_str)
}
