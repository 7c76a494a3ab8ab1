//! Event streams that agents upload: runs of their own, or a part of somebody else's.

use rstest::rstest;
use serde_json::json;

use crate::support::{Ask, SseClient, Stage, Store, events_of, terminal_of};
use crate::writers::{post, texts, upload, write};

#[rstest]
#[tokio::test]
async fn an_uploaded_stream_is_a_run_that_everybody_sees_while_it_is_uploaded(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let parent = stage.run_in("s").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    device.entry().await;
    let headers = [("sidestream-source", "writer"), ("sidestream-parent-run", &parent.id)];
    let mut stream = upload(&stage.sidecar, &headers).await;
    stream.write(": hello\n\nevent: delta\nid: 1\ndata: {\"t\": 0}\n\n").await;
    let started = device.entry().await;
    let run = started["run"].as_str().unwrap().to_owned();
    assert_eq!((&started["state"], &started["source"]), (&json!("started"), &json!("writer")));
    assert_eq!(started["parent"], parent.id);
    assert_eq!(device.entry().await["event"], "delta");
    for n in 1..10 {
        stream.event(n).await;
        let entry = device.entry().await;
        assert_eq!((&entry["json"], &entry["run"], &entry["source"]), (&json!(n), &json!(run), &json!("writer")));
    }
    let answer = stream.end().await;
    assert_eq!((answer.status.as_u16(), answer.header("sidestream-run")), (200, &*run));
    let said = answer.json().await;
    let entries = device.collect_until_terminal(&run).await;
    assert_eq!(entries[0]["state"], "completed");
    assert_eq!((&said["offset"], &said["first"]), (&entries[0]["offset"], &started["offset"]));
    assert_eq!((&said["state"], &said["events"], &said["run"]), (&json!("completed"), &json!(10), &json!(run)));
    let replay =
        SseClient::new(stage.sidecar.get(format!("/_sidestream/v1/sessions/s/runs/{run}/stream")).send().await);
    assert_eq!(replay.rest().await.0.len(), 10);
}

#[rstest]
#[tokio::test]
async fn an_upload_that_breaks_off_fails_its_run(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let stage = Stage::on(store).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let mut stream = upload(&stage.sidecar, &[]).await;
    stream.write("data: 1\n\ndata: ha").await;
    let run = device.entry().await["run"].as_str().unwrap().to_owned();
    assert_eq!(device.entry().await["json"], 1);
    stream.break_off();
    let terminal = device.collect_until_terminal(&run).await.pop().unwrap();
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("writer_reset")));
    terminal_of(&stage.sidecar.entries("s").await, &run);
}

#[tokio::test]
async fn an_upload_that_falls_silent_is_stalled_then_failed() {
    let route = "[[route]]\nmatch = \"* /*\"\nstall = \"200ms\"\nstall_limit = \"400ms\"";
    let stage = Stage::with(Store::Embedded, route).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let mut stream = upload(&stage.sidecar, &[]).await;
    stream.event(1).await;
    let run = device.entry().await["run"].as_str().unwrap().to_owned();
    let document = stream.refused().await.problem_document().await;
    assert_eq!((&document["reason"], &document["events"]), (&json!("stalled"), &json!(1)));
    let entries = device.collect_until_terminal(&run).await;
    let states: Vec<_> = entries.iter().filter(|entry| entry.kind() == "run").map(|entry| &entry["state"]).collect();
    assert_eq!(states, ["stalled", "failed"]);
    assert_eq!(document["offset"], entries.last().unwrap()["offset"]);
}

#[rstest]
#[tokio::test]
async fn an_upload_ends_where_somebody_cancels_its_run(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let stage = Stage::on(store).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let mut stream = upload(&stage.sidecar, &[]).await;
    stream.event(1).await;
    let run = device.entry().await["run"].as_str().unwrap().to_owned();
    device.entry().await;
    let cancel = stage.sidecar.post(format!("/_sidestream/v1/sessions/s/runs/{run}/cancel")).send().await;
    assert_eq!(cancel.json().await["outcome"], "cancelled");
    let document = stream.refused().await.problem_document().await;
    assert_eq!((&document["code"], &document["state"]), (&json!("conflict"), &json!("cancelled")));
    let entries = stage.sidecar.entries("s").await;
    assert_eq!((&document["events"], &document["offset"]), (&json!(1), &entries.last().unwrap()["offset"]));
    assert_eq!(terminal_of(&entries, &run)["state"], "cancelled");
}

#[rstest]
#[tokio::test]
async fn several_agents_write_into_one_run_until_it_ends(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let mut helper = upload(&stage.sidecar, &[("sidestream-run", &run.id), ("sidestream-source", "helper")]).await;
    for n in 0..5 {
        run.upstream.event(n).await;
        run.caller.arrives(&format!("data: {n}\n\n")).await;
        helper.event(format!("\"h{n}\"")).await;
        device.collect_until(|message| message["json"] == format!("h{n}")).await;
    }
    let note = write(&stage.sidecar, json!({"data": "note", "run": run.id})).await;
    assert_eq!(note.status, 200);
    run.upstream.end().await;
    device.collect_until_terminal(&run.id).await;
    helper.event("\"late\"").await;
    let document = helper.refused().await.problem_document().await;
    assert_eq!((&document["code"], &document["events"]), (&json!("conflict"), &json!(5)));
    assert_eq!(document["state"], "completed");
    let late = write(&stage.sidecar, json!({"data": "late", "run": run.id})).await;
    assert_eq!(late.problem().await, (409, "conflict".into()));
    let entries = stage.sidecar.entries("s").await;
    assert_eq!(entries.last(), Some(terminal_of(&entries, &run.id)), "nothing follows the terminal");
    let of_run: Vec<_> = events_of(&entries, &run.id, "").into_iter().map(|event| event.data).collect();
    let in_turn = (0..5).flat_map(|n| [n.to_string(), format!("\"h{n}\"")]).chain(["note".to_owned()]);
    assert_eq!(of_run, in_turn.collect::<Vec<_>>());
    // The direct caller has its upstream's bytes and nothing else.
    let (body, _) = run.caller.whole().await;
    assert!(!String::from_utf8_lossy(&body).contains('h'));
}

#[tokio::test]
async fn a_run_that_the_session_does_not_have_is_not_written_to() {
    let mut stage = Stage::on(Store::Embedded).await;
    let run = stage.run_in("elsewhere").await;
    for id in [run.id.as_str(), "nobody"] {
        let answer = write(&stage.sidecar, json!({"data": "x", "run": id})).await;
        assert_eq!(answer.problem().await, (404, "not_found".into()));
        let mut stream = upload(&stage.sidecar, &[("sidestream-run", id)]).await;
        stream.event(1).await;
        assert_eq!(stream.refused().await.problem().await, (404, "not_found".into()));
        let child = upload(&stage.sidecar, &[("sidestream-parent-run", id)]).await;
        assert_eq!(child.refused().await.problem().await, (404, "not_found".into()));
    }
    assert_eq!(
        stage.sidecar.get("/_sidestream/v1/sessions/s").send().await.status,
        404,
        "nothing has made the session"
    );
}

#[rstest]
#[tokio::test]
async fn a_producers_stream_that_broke_off_is_sent_again_and_stored_once(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let run = stage.run_in("s").await;
    let headers =
        [("producer-id", "p"), ("producer-epoch", "1"), ("producer-seq", "1"), ("sidestream-run", run.id.as_str())];
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let mut first = upload(&stage.sidecar, &headers).await;
    first.write("data: 1\n\ndata: 2\n\ndata: 3").await;
    device.collect_until(|message| message["json"] == 2).await;
    first.break_off();
    let mut again = upload(&stage.sidecar, &headers).await;
    again.write("data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n").await;
    let said = again.end().await.json().await;
    assert_eq!((&said["events"], &said["duplicates"]), (&json!(4), &json!(2)));
    assert_eq!(texts(&stage.sidecar.entries("s").await), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn an_erased_session_ends_what_is_written_to_it() {
    let stage = Stage::on(Store::Embedded).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let mut lines = post(&stage.sidecar, "application/x-ndjson").upload().await;
    lines.write("{\"data\":\"a\"}\n").await;
    device.entry().await;
    let mut stream = upload(&stage.sidecar, &[]).await;
    stream.event(1).await;
    device.entry().await;
    device.entry().await;
    Ask::new(http::Method::DELETE, &stage.sidecar.url(), "/_sidestream/v1/sessions/s").send().await;
    lines.write("{\"data\":\"b\"}\n").await;
    assert_eq!(lines.refused().await.problem().await, (410, "gone".into()));
    stream.event(2).await;
    assert_eq!(stream.refused().await.problem().await, (410, "gone".into()));
}
