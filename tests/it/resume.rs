//! Resuming over SSE. Where a route writes our ids, a client of the web's own `EventSource` comes back
//! to the same URL and never starts a second run.

use rstest::rstest;
use serde_json::json;

use crate::support::{End, Event, Message, Run, SseClient, Stage, Store};

const IDS: &str = "[[route]]\nmatch = \"* /chat\"\nids = \"on\"\nintercept = true";

fn data(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.data.as_str()).collect()
}

/// A run whose direct caller has read two events; the caller's reader.
async fn begun(stage: &mut Stage) -> (Run2, SseClient, String) {
    let Run { session, id, caller, mut upstream } = stage.run_in("s").await;
    let mut reader = SseClient::new(caller);
    upstream.write(": a comment\n\ndata: 1\n\nid: theirs\ndata: 2\r\n\r\n").await;
    assert_eq!(reader.next().await.unwrap().data, "1");
    let last = reader.next().await.unwrap();
    assert!(last.id.starts_with(&format!("ss1.{session}.{id}.")), "{}", last.id);
    (Run2 { id, upstream }, reader, last.id)
}

/// A run whose caller is a reader.
struct Run2 {
    id: String,
    upstream: crate::support::Asked,
}

#[rstest]
#[case::get("GET")]
#[case::post("POST")]
#[tokio::test]
async fn a_client_that_comes_back_with_our_id_gets_the_rest_and_the_upstream_is_not_asked_again(
    #[case] method: &str,
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::with(store, IDS).await;
    let (mut run, reader, last) = begun(&mut stage).await;
    drop(reader);
    run.upstream.event("3").await;
    let url = stage.sidecar.url();
    let back = async |last: &str| {
        let ask = crate::support::Ask::new(method.parse().unwrap(), &url, "/chat");
        ask.header("last-event-id", last).header("accept", "text/event-stream").body("{}").send().await
    };
    let answer = back(&last).await;
    assert_eq!(answer.header("sidestream-run"), run.id);
    let mut reader = SseClient::new(answer);
    let third = reader.next().await.unwrap();
    assert_eq!(third.data, "3");
    assert_ne!(third.id, last);
    // It goes on live, and may be cut again.
    run.upstream.event("4").await;
    let fourth = reader.next().await.unwrap();
    assert_eq!(fourth.data, "4");
    drop(reader);
    let mut reader = SseClient::new(back(&third.id).await);
    assert_eq!(reader.next().await, Ok(fourth.clone()));
    run.upstream.end().await;
    assert_eq!(reader.next().await, Err(End::Clean));
    // All was delivered: an EventSource stops at 204.
    let over = back(&fourth.id).await;
    assert_eq!(over.status, 204);
    let again = SseClient::new(back(&last).await).rest().await;
    assert_eq!((data(&again.0), again.1), (vec!["3", "4"], End::Clean));
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn an_event_source_gets_ids_by_itself_unless_the_upstream_sets_its_own() {
    let route = "[[route]]\nmatch = \"GET /chat\"\nintercept = true";
    let mut stage = Stage::with(Store::Embedded, route).await;
    let ask = stage.sidecar.get("/chat").header("accept", "text/event-stream");
    let mut run = stage.answered(ask).await;
    run.upstream.event("1").await;
    run.upstream.end().await;
    let (events, _) = SseClient::new(run.caller).rest().await;
    assert!(events[0].id.starts_with("ss1."), "{events:?}");

    let ask = stage.sidecar.get("/chat").header("accept", "text/event-stream");
    let mut run = stage.answered(ask).await;
    run.upstream.write("id: 17\ndata: 1\n\ndata: 2\n\n").await;
    run.upstream.end().await;
    assert_eq!(run.caller.whole().await.0, "id: 17\ndata: 1\n\ndata: 2\n\n");

    let mut run = stage.answered(stage.sidecar.get("/chat")).await;
    run.upstream.event("1").await;
    run.upstream.end().await;
    assert_eq!(run.caller.whole().await.0, "data: 1\n\n", "who does not ask for an event stream gets no ids");
}

#[rstest]
#[tokio::test]
async fn a_run_that_failed_never_ends_politely_for_who_resumes_it(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::with(store, IDS).await;
    let (mut run, mut reader, last) = begun(&mut stage).await;
    run.upstream.event("3").await;
    assert_eq!(reader.next().await.unwrap().data, "3");
    run.upstream.reset();
    assert_eq!(reader.next().await, Err(End::Aborted));
    let back = stage.sidecar.post("/chat").header("last-event-id", &last).send().await;
    let (events, end) = SseClient::new(back).rest().await;
    assert_eq!((data(&events), end), (vec!["3"], End::Aborted));
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_run_as_sse_is_the_same_dialect_in_canonical_framing() {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse_with("x-vercel-ai-ui-message-stream: v1\r\nset-cookie: secret=1\r\nx-request-id: 9\r\n").await;
        upstream
    };
    let (caller, upstream) = tokio::join!(stage.sidecar.post("/chat").send(), upstream);
    assert_eq!((caller.header("set-cookie"), caller.header("x-request-id")), ("secret=1", "9"));
    let mut run = Run::new(caller, upstream);
    let text =
        ":comment\r\nunknown: x\r\nid:7\r\nevent:delta\r\ndata:a\r\ndata:  b\r\n\r\nevent: no data\r\n\r\ndata\r\n\r\n";
    run.upstream.write(text).await;
    run.upstream.end().await;
    run.caller.whole().await;
    let path = format!("/_sidestream/v1/sessions/{}/runs/{}/stream", run.session, run.id);
    let again = stage.sidecar.get(path).send().await;
    assert_eq!(again.header("x-vercel-ai-ui-message-stream"), "v1");
    assert!(again.headers.get("set-cookie").is_none() && again.headers.get("x-request-id").is_none());
    assert_eq!(again.header("sidestream-run"), run.id);
    assert_eq!(again.whole().await, ("event: delta\ndata: a\ndata:  b\nid: 7\n\ndata: \n\n".into(), End::Clean));
}

#[tokio::test]
async fn a_run_that_ends_with_an_error_event_ends_for_who_resumes_as_it_did_for_its_caller() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run().await;
    run.upstream.write("data: 1\n\nevent: error\ndata: overloaded\n\n").await;
    run.upstream.end().await;
    let (body, end) = run.caller.whole().await;
    assert_eq!(end, End::Clean);
    let path = format!("/_sidestream/v1/sessions/{}/runs/{}/stream", run.session, run.id);
    assert_eq!(stage.sidecar.get(path).send().await.whole().await, (body, End::Clean));
}

#[rstest]
#[tokio::test]
async fn the_upstreams_own_ids_are_honoured_where_the_session_is_known(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let route = "[[route]]\nmatch = \"* /chat\"\nintercept = true\nsession = [\"query:thread\"]";
    let mut stage = Stage::with(store, route).await;
    let ask = |stage: &Stage| stage.sidecar.get("/chat?thread=t").header("accept", "text/event-stream");
    let mut run = stage.answered(ask(&stage)).await;
    run.upstream.write("id: 7\ndata: 1\n\ndata: 2\n\nid: 8\ndata: 3\n\n").await;
    run.caller.arrives("data: 3\n\n").await;
    drop(run.caller);
    let back = ask(&stage).header("last-event-id", "7").send().await;
    assert_eq!(back.header("sidestream-run"), run.id);
    let mut reader = SseClient::new(back);
    // Who has id 7 may have the event after it, too, but may not: the entry with the id counts.
    assert_eq!(reader.next().await.unwrap().data, "2");
    assert_eq!(reader.next().await.unwrap().data, "3");
    run.upstream.end().await;
    assert_eq!(reader.next().await, Err(End::Clean));
    assert_eq!(ask(&stage).header("last-event-id", "8").send().await.status, 204);
    assert_eq!(stage.agent.count(), 1);
    // An id that the run does not have is the upstream's business.
    let other = stage.answered(ask(&stage).header("last-event-id", "unheard-of")).await;
    assert_eq!(other.upstream.header("last-event-id"), Some("unheard-of"));
    assert_ne!(other.id, run.id);
}

#[rstest]
#[tokio::test]
async fn a_get_comes_back_for_what_a_post_began_also_while_newer_runs_answer(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let route = "[[route]]\nmatch = \"* /mcp\"\nsession = [\"header:mcp-session-id\"]";
    let mut stage = Stage::with(store, route).await;
    let post = |stage: &Stage| stage.sidecar.post("/mcp").header("mcp-session-id", "m");
    let get =
        |stage: &Stage| stage.sidecar.get("/mcp").header("mcp-session-id", "m").header("accept", "text/event-stream");
    let mut older = stage.answered(post(&stage)).await;
    older.upstream.write("id: a1\ndata: 1\n\n").await;
    older.caller.arrives("data: 1\n\n").await;
    drop(older.caller);
    let mut newer = stage.answered(post(&stage)).await;
    newer.upstream.write("id: b1\ndata: x\n\n").await;
    newer.caller.arrives("data: x\n\n").await;
    let back = get(&stage).header("last-event-id", "a1").send().await;
    assert_eq!(back.header("sidestream-run"), older.id);
    let mut reader = SseClient::new(back);
    older.upstream.write("id: a2\ndata: 2\n\n").await;
    assert_eq!(reader.next().await.unwrap().data, "2");
    older.upstream.end().await;
    assert_eq!(reader.next().await, Err(End::Clean));
    assert_eq!(stage.agent.count(), 2);
    // The session's notifications are a stream of its own, with ids of its own: the upstream's business.
    let ask = get(&stage).header("last-event-id", "n7");
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    };
    let (answer, upstream) = tokio::join!(ask.send(), upstream);
    assert_eq!(upstream.header("last-event-id"), Some("n7"));
    assert_eq!(answer.header("sidestream-durable"), "no");
}

#[rstest]
#[tokio::test]
async fn a_live_run_that_has_said_nothing_yet_is_answered_at_once(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    let path = "/_sidestream/v1/sessions/s/runs/active/stream";
    let mut reader = SseClient::new(stage.sidecar.get(path).send().await);
    run.upstream.event("1").await;
    assert_eq!(reader.next().await.unwrap().data, "1");
}

#[tokio::test]
async fn a_resume_of_what_is_not_there_is_not_found() {
    let mut stage = Stage::with(Store::Embedded, IDS).await;
    let run = stage.run_in("s").await;
    let unknown = ["ss1.nobody.r.1-1".to_owned(), "ss1.s.nobody.1-1".to_owned(), format!("ss1.nobody.{}.1-1", run.id)];
    for id in unknown {
        let answer = stage.sidecar.post("/chat").header("last-event-id", &id).send().await;
        assert_eq!(answer.problem().await, (404, "not_found".into()), "{id}");
    }
    assert_eq!(stage.agent.count(), 1);
    let path = "/_sidestream/v1/sessions/s/runs/nobody/stream";
    assert_eq!(stage.sidecar.get(path).send().await.problem().await, (404, "not_found".into()));
    let path = "/_sidestream/v1/sessions/nobody/runs/active/stream";
    assert_eq!(stage.sidecar.get(path).send().await.problem().await, (404, "not_found".into()));
}

#[rstest]
#[tokio::test]
async fn a_session_is_resumed_with_the_offset_that_its_stream_gave_as_id(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    let mut last = String::new();
    let mut read: Vec<Message> = Vec::new();
    for n in 0..5 {
        let ask = stage.sidecar.get("/_sidestream/v1/sessions/s/events").header("last-event-id", &last);
        let mut reader = SseClient::new(ask.send().await);
        run.upstream.event(n).await;
        loop {
            let (event, message) = reader.message().await.unwrap();
            last = event.id;
            if !message.is_entry() {
                continue;
            }
            let done = message["json"] == n;
            read.push(message);
            if done {
                break;
            }
        }
    }
    let seqs: Vec<u64> = read.iter().map(|message| message.offset().seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
    assert_eq!(read[5]["json"], json!(4));
}
