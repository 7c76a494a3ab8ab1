//! Any number of agents in one session at once, each in its own run, with no relay in between.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Ask, Message, Run, Stage, Store, events_of, terminal_of};

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
    for run in runs.into_iter().rev() {
        run.upstream.end().await;
    }
    let seen = entries(&all.collect_until(|message| message.is_terminal() && message["run"] == orchestrator).await);
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
