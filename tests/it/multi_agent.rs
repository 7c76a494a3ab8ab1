//! Any number of agents in one session at once, each in its own run, with no relay in between.

use std::process::Command;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{
    Ask, End, Message, Process, Run, Sidecar, SseClient, Stage, Store, events_of, terminal_of, until,
};

/// A request of the agent `source`, which the run `parent` makes.
fn call(stage: &Stage, source: &str, parent: Option<&str>) -> Ask {
    let ask = stage.sidecar.post("/chat").header("sidestream-session", "s").header("sidestream-source", source);
    match parent {
        Some(parent) => ask.header("sidestream-parent-run", parent),
        None => ask,
    }
}

/// An orchestrator and the three agents that it has called, all of them at work.
async fn four(stage: &mut Stage) -> Vec<Run> {
    let ask = call(stage, "orchestrator", None);
    let mut runs = vec![stage.answered(ask).await];
    for source in ["researcher", "writer", "critic"] {
        let ask = call(stage, source, Some(&runs[0].id));
        runs.push(stage.answered(ask).await);
    }
    runs
}

fn entries(messages: &[Message]) -> Vec<Value> {
    messages.iter().filter(|message| message.is_entry()).map(Message::entry).collect()
}

#[rstest]
#[tokio::test]
async fn four_agents_write_side_by_side_and_every_filter_is_an_exact_slice(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut all = stage.sidecar.connect().await;
    all.attach("s").await;
    let mut runs = four(&mut stage).await;
    let (orchestrator, critic) = (runs[0].id.clone(), runs[3].id.clone());
    let filters = [
        json!({"sources": ["writer"]}),
        json!({"sources": ["critic", "orchestrator"]}),
        json!({"runs": [critic]}),
        json!({"runs": [orchestrator, critic], "sources": ["critic"]}),
    ];
    let mut live = Vec::new();
    for filter in &filters {
        let mut device = stage.sidecar.connect().await;
        device.attach_with("s", filter.clone()).await;
        live.push(device);
    }
    for n in 0..10 {
        for run in &mut runs {
            run.upstream.event(n).await;
            run.caller.arrives(&format!("data: {n}\n\n")).await;
        }
    }
    let ids: Vec<String> = runs.iter().map(|run| run.id.clone()).collect();
    let mut seen = Vec::new();
    for run in runs.into_iter().rev() {
        run.upstream.end().await;
        seen.extend(entries(&all.collect_until_terminal(&run.id).await));
    }
    // The order in which each was answered is the order of the log.
    let order: Vec<_> = seen.iter().filter(|entry| entry["type"] == "event").map(|entry| &entry["run"]).collect();
    let in_turn: Vec<_> = (0..10).flat_map(|_| ids.iter().map(|id| json!(id))).collect();
    assert_eq!(order, in_turn.iter().collect::<Vec<_>>());
    let log = stage.sidecar.entries("s").await;
    assert_eq!(entries(&log).len(), 4 * 12);
    for (at, source) in ["orchestrator", "researcher", "writer", "critic"].iter().enumerate() {
        let of_run: Vec<_> = log.iter().filter(|entry| entry["run"] == ids[at]).collect();
        assert!(of_run.iter().all(|entry| entry["source"] == *source), "{of_run:?}");
        assert_eq!(of_run[0]["parent"], if at == 0 { Value::Null } else { json!(orchestrator) });
        assert_eq!(events_of(&log, &ids[at], "").len(), 10);
        assert_eq!(terminal_of(&log, &ids[at])["state"], "completed");
    }
    for (filter, device) in filters.iter().zip(&mut live) {
        let passes = |entry: &Value| {
            ["runs", "sources"]
                .iter()
                .zip(["run", "source"])
                .all(|(wanted, field)| filter[*wanted].as_array().is_none_or(|wanted| wanted.contains(&entry[field])))
        };
        let slice: Vec<Value> = entries(&log).into_iter().filter(passes).collect();
        let last = slice.last().unwrap()["offset"].clone();
        assert_eq!(entries(&device.collect_until(|message| message["offset"] == last).await), slice, "{filter}");
        let mut late = stage.sidecar.connect().await;
        late.attach_with("s", filter.clone()).await;
        assert_eq!(entries(&late.collect_until_live().await), slice, "on rejoin: {filter}");
    }
}

#[tokio::test]
async fn an_agent_is_told_its_session_and_run_where_its_caller_knows_of_us() {
    let mut stage = Stage::on(Store::Embedded).await;
    let told = |run: &Run, name: &str| {
        let found = run.upstream.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    let run = stage.run_in("s").await;
    assert_eq!(told(&run, "sidestream-session"), Some("s".into()));
    assert_eq!(told(&run, "sidestream-run"), Some(run.id.clone()));
    let unaware = stage.run().await;
    for name in ["sidestream-session", "sidestream-run"] {
        assert_eq!(told(&unaware, name), None);
    }
}

/// A program of the example, and the address that it has printed.
async fn agent(name: &'static str, addresses: &[(&str, String)]) -> (Process, String) {
    let mut command = Command::new("python3");
    command.arg(format!("{}/examples/multi-agent/{name}.py", env!("CARGO_MANIFEST_DIR")));
    command.env("PACE", "0.05").env("PYTHONDONTWRITEBYTECODE", "1");
    command.envs(addresses.iter().map(|(name, address)| (name, address)));
    let mut process = Process::spawn(name, &mut command);
    let url = until(format!("the address of {name}"), async || {
        assert_eq!(process.ended(), None, "{name} has ended");
        process.output().lines().find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()))
    })
    .await;
    (process, url)
}

/// The deltas of the entries of one source.
fn words(entries: &[Message], source: &str) -> Vec<String> {
    let of_source = entries.iter().filter(|entry| entry.kind() == "event" && entry["source"] == source);
    of_source.filter_map(|entry| Some(entry["json"]["choices"][0]["delta"]["content"].as_str()?.to_owned())).collect()
}

/// The example, as its `start` starts it: an orchestrator that relays nothing, two agents behind
/// sidecars of their own, and one that writes to the session itself.
#[tokio::test]
async fn the_example_shows_four_agents_live_in_one_session() {
    let redis = Store::Redis.start();
    let sidecar = async |upstream: &str| Sidecar::of(upstream).store(redis.url()).start().await;
    let (_researcher, researcher) = agent("researcher", &[]).await;
    let (_writer, writer) = agent("writer", &[]).await;
    let (researcher_sidecar, writer_sidecar) = (sidecar(&researcher).await, sidecar(&writer).await);
    let (_critic, critic) = agent("critic", &[("SIDECAR", writer_sidecar.url())]).await;
    let addresses = [("RESEARCHER", researcher_sidecar.url()), ("WRITER", writer_sidecar.url()), ("CRITIC", critic)];
    let (_orchestrator, orchestrator) = agent("orchestrator", &addresses).await;
    let front = sidecar(&orchestrator).await;
    let mut device = front.connect().await;
    device.attach("tea").await;

    let question = r#"{"message":"green tea"}"#;
    let ask = front.post("/chat").header("sidestream-session", "tea").header("sidestream-source", "orchestrator");
    let caller = ask.body(question).send().await;
    let run = caller.header("sidestream-run").to_owned();
    let (body, end) = caller.whole().await;
    assert_eq!(end, End::Clean);

    let live = device.collect_until(|message| message.is_terminal() && message["run"] == run).await;
    let log = front.entries("tea").await;
    assert_eq!(entries(&live), entries(&log), "all of it came live");
    assert!(live.iter().filter(|message| message.is_entry()).all(|entry| entry["replay"].is_null()));
    let started: Vec<_> = log.iter().filter(|entry| entry["state"] == "started").collect();
    assert_eq!(started.len(), 4);
    for entry in started {
        let parent = if entry["source"] == "orchestrator" { Value::Null } else { json!(run) };
        assert_eq!(entry["parent"], parent, "{entry}");
        assert_eq!(terminal_of(&log, entry["run"].as_str().unwrap())["state"], "completed");
    }
    // Complete: what each says when it is asked without Sidestream.
    for (source, url) in [("researcher", &researcher), ("writer", &writer)] {
        let mut alone = SseClient::new(Ask::post(url, "/chat").body(question).send().await);
        let mut expected = Vec::new();
        while let Ok(event) = alone.next().await {
            let data: Value = serde_json::from_str(&event.data).unwrap();
            expected.push(data["choices"][0]["delta"]["content"].as_str().unwrap().to_owned());
        }
        assert_eq!(words(&log, source), expected);
    }
    assert!(words(&log, "critic").concat().ends_with("how would we know? "));
    // Interleaved: while each of them spoke, the others did.
    let speakers: Vec<_> = log.iter().filter(|entry| entry.kind() == "event").map(|entry| &entry["source"]).collect();
    for one in ["researcher", "writer", "critic"] {
        let first = speakers.iter().position(|source| *source == one).unwrap();
        let last = speakers.iter().rposition(|source| *source == one).unwrap();
        for other in ["researcher", "writer", "critic"] {
            assert!(speakers[first..=last].iter().any(|source| *source == other), "{one} spoke without {other}");
        }
    }
    // Relayed: nothing.
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.contains("The critic is done") && !body.contains("sources"), "{body}");
}
