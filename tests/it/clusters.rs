//! Sessions that lie on different servers of a cluster, through instances that share it.

use serde_json::json;

use crate::support::{
    End, RedisCluster, Run, RunningStore, ScriptedAgent, Sidecar, Stage, events_of, terminal_of, until,
};

async fn stage() -> Stage {
    let (cluster, agent) = (RedisCluster::start().await, ScriptedAgent::start().await);
    let sidecar = Sidecar::of(agent.url()).store(cluster.url()).start().await;
    Stage { sidecar, agent, store: RunningStore::Cluster(cluster) }
}

#[tokio::test]
async fn sessions_on_all_servers_of_a_cluster_are_served_followed_stopped_listed_and_erased_by_every_instance() {
    let mut stage = stage().await;
    let other = stage.another_sidecar().await;
    let mut runs: Vec<Run> = Vec::new();
    for n in 0..6 {
        runs.push(stage.run_in(&format!("s{n}")).await);
    }
    let mut devices = Vec::new();
    for run in &mut runs {
        let mut device = other.connect().await;
        device.attach(&run.session).await;
        run.upstream.event("hello").await;
        while device.entry().await["text"] != "hello" {}
        devices.push(device);
    }
    let listed = other.admin("/sessions").await.json().await;
    assert_eq!(listed["sessions"].as_array().unwrap().len(), runs.len(), "{listed}");
    for (run, device) in runs.iter_mut().zip(&mut devices) {
        let ack = device.ask(json!({"type": "cancel", "session": run.session, "run": run.id})).await;
        assert_eq!((&ack["outcome"], &ack["upstream"]), (&json!("cancelled"), &json!("closed")), "{ack}");
        run.upstream.closed_by_the_sidecar().await;
        device.collect_until_terminal(&run.id).await;
    }
    for run in runs {
        assert_eq!(run.caller.whole().await.1, End::Aborted);
        let path = format!("/_sidestream/v1/sessions/{}", run.session);
        assert_eq!(other.delete(&path).send().await.status, 204);
        assert_eq!(stage.sidecar.get(&path).send().await.status, 404);
    }
}

#[tokio::test]
async fn what_a_server_of_a_cluster_took_with_it_is_served_on_and_whole_when_its_replica_has_its_place() {
    let mut stage = stage().await;
    let mut run = stage.run_in("s").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    run.upstream.event(0).await;
    run.caller.arrives("data: 0\n\n").await;
    let cluster = stage.store.cluster();
    let slot = cluster.slot_of("ss:{default:s}:log").await;
    let dead = cluster.primary_of(slot).await;
    cluster.node_mut(dead).kill();
    for n in 1..20 {
        run.upstream.event(n).await;
        run.caller.arrives(&format!("data: {n}\n\n")).await;
    }
    run.upstream.end().await;
    assert_eq!(run.caller.whole().await.1, End::Clean);
    // Elsewhere in the cluster sessions begin and end meanwhile, or as soon as it knows who is who.
    until("a session on another server", async || {
        let path = "/_sidestream/v1/sessions/elsewhere/events";
        (stage.sidecar.post(path).body(r#"{"data":"a"}"#).send().await.status == 200).then_some(())
    })
    .await;
    let all = device.collect_until_terminal(&run.id).await;
    let view = until("the log", async || {
        let described = stage.sidecar.get("/_sidestream/v1/sessions/s").send().await;
        if described.status != 200 || described.json().await["runs"] != json!([]) {
            return None;
        }
        Some(stage.sidecar.entries("s").await)
    })
    .await;
    let data: Vec<String> = events_of(&view, &run.id, "").into_iter().map(|event| event.data).collect();
    assert_eq!(data, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(terminal_of(&view, &run.id)["state"], "completed");
    assert_eq!(terminal_of(&all, &run.id)["offset"], terminal_of(&view, &run.id)["offset"]);
}
