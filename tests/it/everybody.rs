//! Several devices at two instances do whatever comes to their minds, all at once, in one session: they
//! send, send again, stop, steer, withdraw, and come back elsewhere. What they were told is what is in
//! the log, the upstream is asked once for each thing that was said, and everybody reads the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::plan::{Dice, play};
use crate::support::{
    Asked, Message, RunningStore, ScriptedAgent, Sidecar, Stage, Store, WebSocket, terminal_of, until,
};

/// So many different things are said with a key.
const KEYS: usize = 6;

#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    devices: Vec<Vec<Does>>,
}

#[derive(Clone, Debug)]
enum Does {
    Send(usize, &'static str),
    CancelKey(usize),
    /// The run of a key, where the device knows it.
    CancelRun(usize),
    CancelActive,
    Steer,
    List,
    /// Comes back at the other instance.
    MoveOn,
    Pause,
}

fn plans() -> impl Strategy<Value = Plan> {
    let key = 0..KEYS;
    let busy = prop_oneof![4 => Just("queue"), 3 => Just("parallel"), 1 => Just("reject"), 1 => Just("interrupt")];
    let does = prop_oneof![
        8 => (key.clone(), busy).prop_map(|(key, busy)| Does::Send(key, busy)),
        2 => key.clone().prop_map(Does::CancelKey),
        3 => key.prop_map(Does::CancelRun),
        2 => Just(Does::CancelActive),
        2 => Just(Does::Steer),
        1 => Just(Does::List),
        1 => Just(Does::MoveOn),
        3 => Just(Does::Pause),
    ];
    (any::<u64>(), prop::collection::vec(prop::collection::vec(does, 1..12), 2..5))
        .prop_map(|(seed, devices)| Plan { seed, devices })
}

/// What devices were told, and what the upstream was asked.
#[derive(Clone, Debug, Default)]
struct Told {
    /// The run of each key.
    runs: BTreeMap<usize, Vec<String>>,
    /// What became of runs that somebody cancelled.
    cancelled: Vec<Value>,
}

/// What came to the upstream: bodies, and how often.
type Requests = Arc<Mutex<BTreeMap<String, usize>>>;

/// Answers everything, somehow.
async fn answer_all(mut agent: ScriptedAgent, requests: Requests) {
    let mut number = 0;
    loop {
        let asked = agent.asked().await;
        let body = String::from_utf8(asked.body.clone()).unwrap();
        *requests.lock().unwrap().entry(body).or_default() += 1;
        number += 1;
        tokio::spawn(answer(asked, Dice::new(0x5eed, number)));
    }
}

async fn answer(mut asked: Asked, mut dice: Dice) {
    dice.pause().await;
    asked.sse().await;
    for n in 0..dice.below(6) {
        dice.pause().await;
        if asked.try_write(format!("data: {n}\n\n")).await.is_err() {
            return;
        }
    }
    match dice.below(6) {
        0 => asked.reset(),
        // It says no more, until it is stopped.
        1 => asked.closed_by_the_sidecar().await,
        _ => {
            // It may have been stopped by now.
            let _ = asked.into_stream().write_all(b"0\r\n\r\n").await;
        }
    }
}

async fn device(sidecars: &[&Sidecar; 2], at: usize, session: &str) -> WebSocket {
    let mut device = sidecars[at].connect_to("/chat").await;
    device.attach(session).await;
    device
}

/// Asks, and asks again where that is said to be safe.
async fn ask(device: &mut WebSocket, message: Value) -> Message {
    loop {
        let answer = device.ask(message.clone()).await;
        if answer["code"] != "not_confirmed" {
            return answer;
        }
    }
}

async fn act(sidecars: &[&Sidecar; 2], session: &str, mut at: usize, plan: &[Does], mut dice: Dice) -> Told {
    let mut told = Told::default();
    let mut socket = device(sidecars, at, session).await;
    for (step, does) in plan.iter().enumerate() {
        match does {
            Does::Send(key, busy) => {
                let message = json!({"type": "send", "session": session, "key": format!("{session} {key}"),
                    "on_busy": busy, "body": format!("{session} key {key}")});
                let answer = ask(&mut socket, message).await;
                match answer.kind() {
                    "ack" => told.runs.entry(*key).or_default().push(answer["run"].as_str().unwrap().to_owned()),
                    _ => assert!(matches!(answer["code"].as_str(), Some("busy" | "too_many")), "{answer}"),
                }
            }
            Does::CancelKey(key) => {
                let message = json!({"type": "cancel", "session": session, "key": format!("{session} {key}")});
                let answer = ask(&mut socket, message).await;
                told.cancelled.extend(answer["runs"].as_array().cloned().unwrap_or_default());
            }
            Does::CancelRun(key) => {
                let Some(run) = told.runs.get(key).and_then(|runs| runs.last()) else { continue };
                let answer = ask(&mut socket, json!({"type": "cancel", "session": session, "run": run})).await;
                told.cancelled.extend(answer["runs"].as_array().cloned().unwrap_or_default());
            }
            Does::CancelActive => {
                let answer = ask(&mut socket, json!({"type": "cancel", "session": session, "run": "active"})).await;
                assert_eq!(answer.kind(), "ack", "{answer}");
                told.cancelled.extend(answer["runs"].as_array().cloned().unwrap_or_default());
            }
            Does::Steer => {
                let body = format!("{session} steered {at} {step} {}", dice.below(1 << 30));
                let message = json!({"type": "steer", "session": session, "run": "active", "body": body});
                let answer = ask(&mut socket, message).await;
                let refused = matches!(answer["code"].as_str(), Some("not_found" | "conflict" | "too_many"));
                assert!(answer.kind() == "ack" || refused, "{answer}");
            }
            Does::List => _ = ask(&mut socket, json!({"type": "queue", "session": session})).await,
            Does::MoveOn => {
                at = 1 - at;
                socket = device(sidecars, at, session).await;
            }
            Does::Pause => dice.pause().await,
        }
    }
    told
}

/// Ends what is left, and waits until nothing is active or waits any more.
async fn settle(sidecar: &Sidecar, session: &str) -> Vec<Message> {
    let mut device = sidecar.connect().await;
    let mut looks = 0;
    until("the end of everything", async || {
        let path = format!("/_sidestream/v1/sessions/{session}");
        let described = sidecar.get(&path).send().await;
        if described.status == 404 {
            return Some(Vec::new());
        }
        ask(&mut device, json!({"type": "cancel", "session": session, "run": "active"})).await;
        let waiting = ask(&mut device, json!({"type": "queue", "session": session})).await;
        let described = sidecar.get(&path).send().await.json().await;
        let none = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
        looks += 1;
        if looks == 500 {
            // For whoever has to find out why.
            eprintln!("still there: {waiting} {described}");
        }
        match none(&waiting["items"]) && none(&described["runs"]) {
            true => Some(sidecar.entries(session).await),
            false => None,
        }
    })
    .await
}

fn judge(all: &[Message], told: &[Told], requests: &BTreeMap<String, usize>, session: &str) {
    let of_run = |run: &str| all.iter().filter(|entry| entry["run"] == run).cloned().collect::<Vec<_>>();
    let started = all.iter().filter(|entry| entry.kind() == "run" && entry["state"] == "started");
    for run in started.map(|entry| entry["run"].as_str().unwrap()) {
        let own = of_run(run);
        terminal_of(&own, run);
        assert!(own.last().unwrap().is_terminal(), "{run} goes on after its end: {own:?}");
        assert_eq!(own.iter().filter(|entry| entry.kind() == "input").count(), 1, "what was said, once: {own:?}");
    }
    for (body, count) in requests.iter().filter(|(body, _)| body.contains(&format!("\"{session} "))) {
        assert_eq!(*count, 1, "the upstream was asked more than once for {body}");
    }
    for key in 0..KEYS {
        let mut runs: Vec<&String> = told.iter().filter_map(|told| told.runs.get(&key)).flatten().collect();
        runs.dedup();
        assert!(runs.len() <= 1, "key {key} has more than one run: {runs:?}");
    }
    for cancelled in told.iter().flat_map(|told| &told.cancelled) {
        let run = cancelled["run"].as_str().unwrap();
        let own = of_run(run);
        match cancelled["outcome"].as_str().unwrap() {
            "withdrawn" => assert!(own.is_empty(), "{cancelled}: {own:?}"),
            "cancelled" => {
                let terminal = terminal_of(&own, run);
                assert_eq!((&terminal["state"], &terminal["offset"]), (&json!("cancelled"), &cancelled["offset"]));
            }
            "already_ended" => assert_eq!(terminal_of(&own, run)["offset"], cancelled["offset"], "{cancelled}"),
            "not_found" => {}
            other => panic!("{other}: {cancelled}"),
        }
    }
}

async fn whatever_devices_do_at_once(store: Store) {
    let Stage { sidecar, agent, store } = Stage::on(store).await;
    let other = match store {
        RunningStore::Redis(_) | RunningStore::Cluster(_) => {
            Some(Sidecar::of(agent.url()).store(store.url()).start().await)
        }
        RunningStore::Embedded(_) => None,
    };
    let requests = Requests::default();
    let answering = tokio::spawn(answer_all(agent, requests.clone()));
    let sidecars = [&sidecar, other.as_ref().unwrap_or(&sidecar)];
    play(plans(), async |number, plan: Plan| {
        let session = format!("s{number}");
        let mut watching = [device(&sidecars, 0, &session).await, device(&sidecars, 1, &session).await];
        let acting = plan.devices.iter().enumerate();
        let acting = acting.map(|(i, does)| act(&sidecars, &session, i % 2, does, Dice::new(plan.seed, i)));
        let told = join_all(acting).await;
        let all = settle(&sidecar, &session).await;
        let Some(last) = all.last() else { return };
        for device in &mut watching {
            let read = device.collect_until(|message| message.is_entry() && message.offset() == last.offset()).await;
            let read: Vec<Value> = read.iter().filter(|message| message.is_entry()).map(Message::entry).collect();
            assert_eq!(read, all.iter().map(Message::entry).collect::<Vec<_>>());
        }
        let requests = requests.lock().unwrap().clone();
        judge(&all, &told, &requests, &session);
    })
    .await;
    answering.abort();
}

#[tokio::test]
async fn whatever_devices_do_at_once_each_is_told_the_truth_at_one_instance() {
    whatever_devices_do_at_once(Store::Embedded).await;
}

#[tokio::test]
async fn whatever_devices_do_at_once_each_is_told_the_truth_at_two_instances() {
    whatever_devices_do_at_once(Store::Redis).await;
}
