//! What is kept, what is not, and that the direct caller notices neither.

use rstest::rstest;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{End, Stage, Store, events_of, terminal_of, until};

/// The ids of all sessions that exist.
async fn sessions(stage: &Stage) -> Vec<String> {
    let listed = stage.sidecar.admin("/sessions").await.json().await;
    listed["sessions"].as_array().unwrap().iter().map(|row| row["session"].as_str().unwrap().to_owned()).collect()
}

#[rstest]
#[tokio::test]
async fn an_answer_says_in_which_session_and_run_it_is_kept(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let run = stage.run().await;
    assert_eq!((run.session.len(), run.id.len()), (32, 32), "128 random bits each");
    let other = stage.run().await;
    assert!(run.session != other.session && run.id != other.id);
    let started = &stage.sidecar.entries(&run.session).await[0];
    assert_eq!((&started["state"], &started["run"]), (&json!("started"), &json!(run.id)));
    assert_eq!(started["offset"], run.caller.header("sidestream-offset"));
    assert_eq!(
        (&started["status"], &started["method"], &started["path"]),
        (&json!(200), &json!("POST"), &json!("/chat"))
    );
    let mut listed = sessions(&stage).await;
    listed.sort();
    let mut expected = [run.session, other.session];
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_get_stream_passes_through_and_says_that_it_is_not_durable() {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    };
    let (mut caller, mut upstream) = tokio::join!(stage.sidecar.get("/feed").send(), upstream);
    assert_eq!(caller.header("sidestream-durable"), "no");
    assert!(caller.headers.get("sidestream-session").is_none());
    upstream.event("1").await;
    caller.arrives("data: 1\n\n").await;
    // It is not read on without its caller: it would be immortal.
    drop(caller);
    upstream.closed_by_the_sidecar().await;
    assert_eq!(sessions(&stage).await, Vec::<String>::new());
    until("the line that says how to keep it", async || {
        let log = stage.sidecar.log();
        (log.contains("GET /feed") && log.contains("intercept = true")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_route_records_what_its_rules_say() {
    let routes =
        "[[route]]\nmatch = \"GET /live\"\nintercept = true\n[[route]]\nmatch = \"POST /secret\"\nrecord = false";
    let mut stage = Stage::with(Store::Embedded, routes).await;
    let run = stage.answered(stage.sidecar.get("/live")).await;
    run.upstream.end().await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    };
    let (caller, _upstream) = tokio::join!(stage.sidecar.post("/secret").send(), upstream);
    assert_eq!(caller.header("sidestream-durable"), "no");
    assert_eq!(sessions(&stage).await, [run.session]);
}

#[tokio::test]
async fn a_backend_keeps_an_answer_out_of_the_log() {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse_with("Sidestream-Record: no\r\n").await;
        upstream.event("private").await;
        upstream.end().await;
    };
    let (caller, ()) = tokio::join!(stage.sidecar.post("/chat").send(), upstream);
    assert_eq!(caller.header("sidestream-durable"), "no");
    assert_eq!(caller.whole().await, ("data: private\n\n".into(), End::Clean));
    assert_eq!(sessions(&stage).await, Vec::<String>::new());
}

#[tokio::test]
async fn with_interception_off_it_is_a_plain_proxy() {
    let mut stage = Stage::with(Store::Embedded, "intercept = \"off\"").await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream.event("1").await;
        upstream.end().await;
    };
    let (caller, ()) = tokio::join!(stage.sidecar.post("/chat").send(), upstream);
    assert!(caller.headers.get("sidestream-session").is_none());
    assert_eq!(caller.whole().await, ("data: 1\n\n".into(), End::Clean));
}

#[tokio::test]
async fn an_error_answer_that_streams_is_not_a_run() {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream
            .raw("HTTP/1.1 429 Too Many\r\ncontent-type: text/event-stream\r\ncontent-length: 9\r\n\r\ndata: 1\n\n")
            .await;
    };
    let (caller, ()) = tokio::join!(stage.sidecar.post("/chat").send(), upstream);
    assert_eq!(caller.status, 429);
    assert_eq!(caller.whole().await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(sessions(&stage).await, Vec::<String>::new());
}

/// Known failure 31: a naive client expects every block to begin with `data: `.
#[rstest]
#[tokio::test]
async fn nothing_of_ours_stands_between_the_events_of_a_direct_caller(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run().await;
    let mut sent = String::new();
    for n in 0..30 {
        let block = if n % 7 == 0 { format!(": a comment\n\ndata: {n}\r\n\r\n") } else { format!("data: {n}\n\n") };
        run.upstream.write(&block).await;
        sent.push_str(&block);
        run.caller.arrives(&block).await;
    }
    run.upstream.end().await;
    assert_eq!(run.caller.whole().await, (sent.into(), End::Clean));
}

/// Known failure 32.
#[rstest]
#[tokio::test]
async fn an_event_of_a_compressed_answer_does_not_wait_for_the_next(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    use std::io::Write;
    let mut stage = Stage::on(store).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("zipped").await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse_with("content-encoding: gzip\r\n").await;
        upstream
    };
    let ask = stage.sidecar.post("/chat").header("sidestream-session", "zipped").header("accept-encoding", "gzip");
    let (mut caller, mut upstream) = tokio::join!(ask.send(), upstream);
    assert!(caller.headers.get("content-encoding").is_none());
    assert_eq!(upstream.header("accept-encoding"), Some("identity"));
    device.expect("live").await;
    assert_eq!(device.entry().await["state"], "started");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for n in 0..5 {
        write!(gzip, "data: {n}\n\n").unwrap();
        gzip.flush().unwrap();
        upstream.write(std::mem::take(gzip.get_mut())).await;
        caller.arrives(&format!("data: {n}\n\n")).await;
        assert_eq!(device.entry().await["json"], n);
    }
    upstream.write(gzip.finish().unwrap()).await;
    upstream.end().await;
    assert_eq!(caller.whole().await.1, End::Clean);
    assert_eq!(device.entry().await["state"], "completed");
}

#[rstest]
#[tokio::test]
async fn an_event_over_the_cap_is_dropped_from_the_log_but_not_from_the_caller(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::with(store, "[limits]\nevent_bytes = \"64KiB\"").await;
    let mut run = stage.run().await;
    let large = format!("data: {}\n\n", "x".repeat(200_000));
    run.upstream.event("1").await;
    // While it comes, it is passed on: it need not fit into memory.
    run.upstream.write(&large[..150_000]).await;
    while run.caller.arrived().len() < 100_000 {
        run.caller.more().await.unwrap();
    }
    run.upstream.write(&large[150_000..]).await;
    run.upstream.event("2").await;
    run.upstream.end().await;
    let (body, end) = run.caller.whole().await;
    assert_eq!((body.len(), end), (18 + large.len(), End::Clean));

    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    let entries = device.collect_until_terminal(&run.id).await;
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind()).collect();
    assert_eq!(kinds, ["run", "event", "event_dropped", "event", "run"]);
    let digest: String = Sha256::digest(&large).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&entries[2]["bytes"], &entries[2]["sha256"]), (&json!(large.len()), &json!(digest)));
    assert_eq!(terminal_of(&entries, &run.id)["state"], "completed");

    // As SSE the run would look whole without it: it is broken off there instead.
    let path = format!("/_sidestream/v1/sessions/{}/runs/{}/stream", run.session, run.id);
    let whole = stage.sidecar.get(&path).send().await.whole().await;
    assert_eq!(whole, ("data: 1\n\n".into(), End::Aborted));
    // Nor is it said that nothing is left for who had all until then.
    let rest = stage.sidecar.get(format!("{path}?after={}", entries[1].offset())).send().await;
    assert_eq!(rest.status, 200);
    assert_eq!(rest.whole().await, ("".into(), End::Aborted));
}

/// Hundreds of them in one run are one line of our log, and a number on its terminal.
#[tokio::test]
async fn events_over_the_cap_are_said_once_for_a_run_and_counted_on_its_terminal() {
    let mut stage = Stage::with(Store::Embedded, "[limits]\nevent_bytes = \"1KiB\"").await;
    let mut run = stage.run().await;
    for _ in 0..5 {
        run.upstream.event(&"x".repeat(2_000)).await;
    }
    run.upstream.event("small").await;
    run.upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    let entries = device.collect_until_terminal(&run.id).await;
    let terminal = terminal_of(&entries, &run.id);
    assert_eq!((&terminal["events"], &terminal["dropped"]), (&json!(6), &json!(5)));
    let small = stage.run().await;
    small.upstream.end().await;
    device.attach(&small.session).await;
    let entries = device.collect_until_terminal(&small.id).await;
    assert!(terminal_of(&entries, &small.id)["dropped"].is_null());
    let log = stage.sidecar.log();
    assert_eq!(log.matches("event above limits.event_bytes").count(), 1, "{log}");
}

/// Known failure 34: the second device shows answers without questions.
#[rstest]
#[tokio::test]
async fn what_the_user_said_stands_before_the_answer(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let route = "[[route]]\nmatch = \"POST /chat\"\ninput = \"json:/message\"\nsession = [\"json:/thread\"]";
    let mut stage = Stage::with(store, route).await;
    let ask = stage.sidecar.post("/chat").body(r#"{"thread":"t1","message":"what is the time?","system":"hidden"}"#);
    let run = stage.answered(ask).await;
    assert_eq!(run.upstream.body, br#"{"thread":"t1","message":"what is the time?","system":"hidden"}"#);
    run.upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach("t1").await;
    let entries = device.collect_until_terminal(&run.id).await;
    assert_eq!((entries[0].kind(), &entries[0]["json"]), ("input", &json!("what is the time?")));
    assert_eq!((&entries[0]["run"], &entries[1]["state"]), (&json!(run.id), &json!("started")));
    assert!(entries.iter().all(|entry| !entry.to_string().contains("hidden")));
}

#[tokio::test]
async fn a_caller_names_the_agent_that_answers() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.answered(stage.sidecar.post("/chat").header("sidestream-source", "planner")).await;
    assert_eq!(run.upstream.header("sidestream-source"), None, "our own headers are not forwarded");
    run.upstream.event("1").await;
    run.upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    let entries = device.collect_until_terminal(&run.id).await;
    assert_eq!(events_of(&entries, &run.id, "").len(), 1);
    assert!(entries.iter().all(|entry| entry["source"] == "planner"), "{entries:?}");
}

#[rstest]
#[tokio::test]
async fn an_erased_session_is_gone_for_everybody(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("erased").await;
    run.upstream.event("1").await;
    run.upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach("erased").await;
    device.collect_until_terminal(&run.id).await;
    let path = "/_sidestream/v1/sessions/erased";
    let url = stage.sidecar.url();
    let erase = || crate::support::Ask::new(http::Method::DELETE, &url, path).send();
    assert_eq!(erase().await.status, 204);
    device.collect_until(|message| message.kind() == "erased").await;
    let refused = stage.sidecar.get(format!("{path}/events")).send().await.problem().await;
    assert_eq!(refused, (404, "not_found".into()));
    assert_eq!(erase().await.problem().await.0, 404);
    assert_eq!(sessions(&stage).await, Vec::<String>::new());
}

#[tokio::test]
async fn counters_say_what_became_of_the_streams() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run().await;
    run.upstream.event("1").await;
    run.upstream.end().await;
    run.caller.whole().await;
    counted(&stage, "sidestream_runs_total{state=\"completed\"} 1").await;
}

/// Waits for a line of the metrics.
async fn counted(stage: &Stage, line: &str) {
    until(line, async || {
        let (metrics, _) = stage.sidecar.health("/metrics").await.whole().await;
        let text = String::from_utf8(metrics.to_vec()).unwrap();
        text.lines().any(|found| found == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn counters_say_what_became_of_the_requests() {
    let mut stage = Stage::on(Store::Embedded).await;
    let run = stage.run_in("s").await;
    counted(&stage, "sidestream_requests_total{outcome=\"recorded\"} 1").await;
    run.upstream.end().await;
    assert_eq!(stage.sidecar.get("/_sidestream/v1/sessions/s").send().await.status, 200);
    counted(&stage, "sidestream_requests_total{outcome=\"own\"} 1").await;
    assert_eq!(stage.sidecar.get("/_sidestream/v1/sessions/nobody").send().await.status, 404);
    counted(&stage, "sidestream_requests_total{outcome=\"refused\"} 1").await;
    let url = stage.sidecar.url();
    let (plain, ()) = tokio::join!(stage.sidecar.get("/plain").send(), async {
        stage.agent.asked().await.json("{}").await;
    });
    assert_eq!(plain.status, 200, "{url}");
    counted(&stage, "sidestream_requests_total{outcome=\"passed_through\"} 1").await;
}

#[tokio::test]
async fn counters_say_what_became_of_what_clients_asked_for() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run_in("s").await;
    let mut phone = stage.sidecar.connect_to("/chat").await;
    phone.ask(serde_json::json!({"type": "send", "session": "s", "body": 1, "on_busy": "reject"})).await;
    counted(&stage, "sidestream_sends_total{outcome=\"refused\"} 1").await;
    phone.ask(serde_json::json!({"type": "send", "session": "s", "body": 1})).await;
    counted(&stage, "sidestream_sends_total{outcome=\"queued\"} 1").await;
    phone.ask(serde_json::json!({"type": "steer", "session": "s", "run": "active", "body": 1})).await;
    counted(&stage, "sidestream_steers_total{outcome=\"queued\"} 1").await;
    phone.ask(serde_json::json!({"type": "cancel", "session": "s", "run": run.id})).await;
    run.upstream.closed_by_the_sidecar().await;
    counted(&stage, "sidestream_cancels_total 1").await;
    // What has waited is a run like any other.
    counted(&stage, "sidestream_runs_total{state=\"started\"} 2").await;
}
