//! Known failure 25: a store with eviction drops a live session.

use redis::cmd;
use serde_json::json;

use crate::support::{RedisServerOptions, Run, ScriptedAgent, Sidecar, terminal_of, until};

#[tokio::test]
async fn a_store_that_evicts_a_live_session_was_warned_of_and_its_run_goes_on_with_a_gap() {
    let server = RedisServerOptions::default().directive("maxmemory-policy allkeys-lru").start();
    let mut agent = ScriptedAgent::start().await;
    let sidecar = Sidecar::of(agent.url()).store(server.url()).start().await;
    until("a warning that names the setting", async || sidecar.log().contains("maxmemory-policy").then_some(())).await;

    let ask = sidecar.post("/chat").header("sidestream-session", "s");
    let (caller, mut upstream) = tokio::join!(ask.send(), async {
        let mut upstream = agent.asked().await;
        upstream.sse().await;
        upstream
    });
    let mut device = sidecar.connect().await;
    device.attach("s").await;
    upstream.event(1).await;
    while device.entry().await["json"] != 1 {}

    let mut redis = server.client().await;
    let limit = async |limit: &str| {
        let set = ["SET", "maxmemory", limit];
        cmd("CONFIG").arg(&set).query_async::<()>(&mut redis.clone()).await.unwrap();
    };
    limit("1mb").await;
    until("the eviction of everything", async || {
        let key: Option<String> = cmd("RANDOMKEY").query_async(&mut redis.clone()).await.unwrap();
        key.is_none().then_some(())
    })
    .await;
    limit("0").await;

    upstream.event(2).await;
    upstream.event(3).await;
    let run = Run::new(caller, upstream);
    run.upstream.end().await;
    // What the device reads is contiguous but for the gaps that it is told of: it checks that itself.
    let seen = device.collect_until(|message| message.is_terminal()).await;
    assert!(seen.iter().any(|message| message.kind() == "gap"), "{seen:?}");
    assert_eq!(terminal_of(&seen, &run.id)["state"], "completed");
    let late: Vec<_> = seen.iter().filter(|m| m.kind() == "event").map(|m| m["json"].clone()).collect();
    assert!(late.ends_with(&[json!(2), json!(3)]), "{late:?}");
    drop(redis);
}
