//! Compacted replay and live rollup: hardly any events, and nothing of the answer is missing. That every
//! record follows the one before it is proven by the clients (`Slice`).

use std::time::Instant;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Ask, End, Message, Run, SseClient, Stage, Store};

/// A chunk of an OpenAI-compatible answer.
fn chunk(text: &str) -> String {
    let delta = json!({"content": text});
    let choice = json!([{"index": 0, "delta": delta, "finish_reason": null}]);
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": choice}).to_string()
}

/// `chunks` as an event stream.
fn stream<'a>(chunks: impl IntoIterator<Item = &'a str>) -> String {
    chunks.into_iter().map(|text| format!("data: {}\n\n", chunk(text))).collect()
}

/// The answer's text as far as these entries of `run` hold it.
fn text_of<'a>(entries: impl IntoIterator<Item = &'a Message>, run: &str) -> String {
    let texts = entries.into_iter().filter(|entry| entry["run"] == run);
    texts.filter_map(|entry| entry["json"]["choices"][0]["delta"]["content"].as_str()).collect()
}

/// The same of an event stream's data.
fn text_in<'a>(data: impl IntoIterator<Item = &'a str>) -> String {
    let values = data.into_iter().filter_map(|data| serde_json::from_str::<Value>(data).ok());
    values.filter_map(|json| json["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

fn words(n: usize) -> Vec<String> {
    (0..n).map(|n| format!(" wörd{}", n % 7)).collect()
}

/// A run whose answer has these chunks, and its end.
async fn finished(stage: &mut Stage, session: &str, chunks: &[String]) -> Run {
    let mut run = stage.run_in(session).await;
    for some in chunks.chunks(500) {
        run.upstream.write(stream(some.iter().map(String::as_str))).await;
    }
    run.upstream.write("data: [DONE]\n\n").await;
    run.caller.arrives("data: [DONE]\n\n").await;
    run
}

fn events(stage: &Stage, query: &str) -> Ask {
    stage.sidecar.get(format!("/_sidestream/v1/sessions/s/events?{query}"))
}

/// Known failure 19: a replay of tens of thousands of one-token events freezes the client.
#[rstest]
#[tokio::test]
async fn a_replay_of_tens_of_thousands_of_tokens_does_not_freeze_the_client(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    const TOKENS: usize = 20_000;
    let mut stage = Stage::on(store).await;
    let words = words(TOKENS);
    let Run { id, upstream, .. } = finished(&mut stage, "s", &words).await;
    upstream.end().await;
    let text = words.concat();

    let mut device = stage.sidecar.connect().await;
    let began = Instant::now();
    device.attach_with("s", json!({"replay": "compact", "create": true})).await;
    let all = device.collect_until_terminal(&id).await;
    println!("caught up with {TOKENS} tokens in {} records, {:?}", all.len(), began.elapsed());
    assert!(all.len() <= TOKENS / 50, "{} records", all.len());
    assert_eq!(text_of(&all, &id), text);
    assert_eq!(all.last().unwrap().offset().seq, TOKENS as u64 + 3);

    let (mut pages, mut after) = (Vec::new(), "0-0".to_owned());
    loop {
        let ask = events(&stage, &format!("replay=compact&limit=20&after={after}"));
        let page = ask.header("accept", "application/json").send().await.json().await;
        pages.extend(page["entries"].as_array().unwrap().iter().map(|entry| Message::parse(&entry.to_string())));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert!(pages.len() <= TOKENS / 50, "{} records in pages", pages.len());
    assert_eq!(text_of(&pages, &id), text);

    let (sse, end) = SseClient::new(events(&stage, "replay=compact&live=0").send().await).rest().await;
    assert_eq!(end, End::Clean);
    assert!(sse.len() <= TOKENS / 50, "{} records over SSE", sse.len());
    let messages: Vec<_> = sse.iter().map(|event| Message::parse(&event.data)).collect();
    assert_eq!(text_of(&messages, &id), text);

    let path = format!("/_sidestream/v1/sessions/s/runs/{id}/stream");
    let (own, end) = SseClient::new(stage.sidecar.get(&path).send().await).rest().await;
    assert_eq!(end, End::Clean);
    assert!(own.len() <= TOKENS / 50, "{} events of the run", own.len());
    assert_eq!(text_in(own.iter().map(|event| &*event.data)), text);
    assert_eq!(own.last().unwrap().data, "[DONE]");

    let full = stage.sidecar.get(format!("{path}?replay=full")).send().await;
    assert!(SseClient::new(full).rest().await.0.len() > TOKENS, "as it was");
}

#[rstest]
#[tokio::test]
async fn a_client_that_comes_back_anywhere_within_a_merged_range_goes_on_exactly_there(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let words = words(40);
    let Run { id, upstream, .. } = finished(&mut stage, "s", &words).await;
    upstream.end().await;
    let mut whole = stage.sidecar.connect().await;
    whole.attach("s").await;
    let whole = whole.collect_until_terminal(&id).await;
    for (n, entry) in whole.iter().enumerate() {
        let after = entry.offset().to_string();
        let rest = text_of(&whole[n + 1..], &id);
        let mut device = stage.sidecar.connect().await;
        device.attach_with("s", json!({"replay": "compact", "after": after})).await;
        let entries = device.collect_until_live().await;
        assert_eq!(text_of(&entries, &id), rest, "after {after}");
        assert!(entries.len() <= 3, "{} records after {after}", entries.len());
        assert!(entries.iter().all(|entry| entry["replay"] == true));
        let ask = events(&stage, &format!("replay=compact&after={after}"));
        let page = ask.header("accept", "application/json").send().await.json().await;
        let page = page["entries"].as_array().unwrap();
        let of_page: Vec<_> = page.iter().map(|entry| Message::parse(&entry.to_string())).collect();
        let of_device: Vec<_> = entries.iter().map(Message::entry).collect();
        assert_eq!(of_page.iter().map(Message::entry).collect::<Vec<_>>(), of_device, "after {after}");
        // Who has a cursor in the run's own stream has what came before it, event by event.
        let stream = format!("/_sidestream/v1/sessions/s/runs/{id}/stream?after={after}");
        let answer = stage.sidecar.get(stream).send().await;
        if answer.status == 204 {
            assert!(n >= whole.len() - 2, "only its terminal is left");
            continue;
        }
        let (own, _) = SseClient::new(answer).rest().await;
        assert_eq!(own.len(), whole[n + 1..].iter().filter(|entry| entry.kind() == "event").count());
        assert_eq!(text_in(own.iter().map(|event| &*event.data)), rest);
    }
}

/// Two agents that speak at once, event by event.
async fn a_dialogue(stage: &mut Stage, rounds: usize) -> (Run, Run) {
    let ask = |source: &str| {
        stage.sidecar.post("/chat").header("sidestream-session", "s").header("sidestream-source", source)
    };
    let (planner, writer) = (ask("planner"), ask("writer"));
    let (mut planner, mut writer) = (stage.answered(planner).await, stage.answered(writer).await);
    for n in 0..rounds {
        for (run, name) in [(&mut planner, "p"), (&mut writer, "w")] {
            let data = chunk(&format!("{name}{n}."));
            run.upstream.event(&data).await;
            run.caller.arrives(&format!("{data}\n\n")).await;
        }
    }
    (planner, writer)
}

fn said(name: &str, rounds: usize) -> String {
    (0..rounds).map(|n| format!("{name}{n}.")).collect()
}

#[tokio::test]
async fn runs_that_speak_at_once_are_one_block_with_a_part_for_each() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (planner, writer) = a_dialogue(&mut stage, 10).await;
    let mut device = stage.sidecar.connect().await;
    device.attach_with("s", json!({"replay": "compact"})).await;
    let entries = device.collect_until_live().await;
    assert_eq!(entries.len(), 2 + 2, "two starts, and one block of two runs: {entries:?}");
    assert_eq!((entries[2].part(), entries[3].part()), ((1, 2), (2, 2)));
    assert_eq!(text_of(&entries, &planner.id), said("p", 10));
    assert_eq!(text_of(&entries, &writer.id), said("w", 10));
    // Over SSE the id of a part that is not the last is where its reader is without the block.
    let mut sse = SseClient::new(events(&stage, "replay=compact&live=0").send().await);
    let mut ids = Vec::new();
    while let Ok(event) = sse.next().await {
        ids.push(event.id);
    }
    let offsets = [entries[0].offset(), entries[1].offset(), entries[1].offset(), entries[3].offset()];
    assert_eq!(ids, offsets.map(|offset| offset.to_string()));
}

#[tokio::test]
async fn a_filtered_reader_has_blocks_of_what_it_wants() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (_planner, mut writer) = a_dialogue(&mut stage, 10).await;
    let mut device = stage.sidecar.connect().await;
    device.attach_with("s", json!({"replay": "compact", "sources": ["writer"]})).await;
    let entries = device.collect_until_live().await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(text_of(&entries, &writer.id), said("w", 10));
    assert!(entries[1].prev().is_some() && entries[1]["part"].is_null(), "{}", entries[1]);
    let position = device.position("s");
    let more = chunk("more");
    writer.upstream.event(&more).await;
    let mut again = stage.sidecar.connect().await;
    again.attach_with("s", json!({"replay": "compact", "sources": ["writer"], "after": position})).await;
    assert_eq!(text_of([&again.entry().await], &writer.id), "more");
}

#[tokio::test]
async fn live_entries_are_not_merged_where_nobody_asked_for_it() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run_in("s").await;
    run.upstream.write(stream(["a", "b", "c"])).await;
    run.caller.arrives(&stream(["c"])).await;
    let mut device = stage.sidecar.connect().await;
    device.attach_with("s", json!({"replay": "compact"})).await;
    let history = device.collect_until_live().await;
    assert_eq!((history.len(), text_of(&history, &run.id)), (2, "abc".to_owned()));
    run.upstream.write(stream(["d", "e", "f"])).await;
    for text in ["d", "e", "f"] {
        let entry = device.entry().await;
        assert_eq!(text_of([&entry], &run.id), text);
        assert!(entry["first"].is_null() && entry["replay"].is_null(), "{entry}");
    }
    // In the run's own stream, too: what was there is merged, and then each comes as it comes.
    let path = format!("/_sidestream/v1/sessions/s/runs/{}/stream", run.id);
    let mut own = SseClient::new(stage.sidecar.get(path).send().await);
    assert_eq!(text_in([&*own.next().await.unwrap().data]), "abcdef");
    run.upstream.write(stream(["g", "h"])).await;
    assert_eq!(text_in([&*own.next().await.unwrap().data]), "g");
    assert_eq!(text_in([&*own.next().await.unwrap().data]), "h");
}

#[tokio::test]
async fn a_socket_that_asks_for_it_gets_live_deltas_rolled_up_and_what_is_no_delta_at_once() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run_in("s").await;
    let mut device = stage.sidecar.connect().await;
    device.attach_with("s", json!({"rollup_ms": 500})).await;
    let mut other = stage.sidecar.connect().await;
    other.attach("s").await;
    device.collect_until_live().await;
    run.upstream.write(stream(["first"])).await;
    let first = device.entry().await;
    assert_eq!((text_of([&first], &run.id), &first["first"]), ("first".to_owned(), &Value::Null));
    let words = words(2_000);
    for some in words.chunks(10) {
        run.upstream.write(stream(some.iter().map(String::as_str))).await;
    }
    run.upstream.write("data: [DONE]\n\n").await;
    let entries = device.collect_until(|entry| entry["text"] == "[DONE]").await;
    assert_eq!(text_of(&entries, &run.id), words.concat());
    assert!(entries.len() < 200, "{} records", entries.len());
    assert!(entries.iter().any(|entry| entry.first() != entry.offset() && entry["replay"].is_null()));
    // Others have what they asked for.
    let full = other.collect_until(|entry| entry["text"] == "[DONE]").await;
    assert_eq!(full.iter().filter(|entry| entry.kind() == "event").count(), 2_002);
}

#[tokio::test]
async fn a_window_that_is_too_long_is_refused_with_the_bound() {
    let stage = Stage::on(Store::Embedded).await;
    let mut device = stage.sidecar.connect().await;
    let ask = json!({"type": "attach", "session": "s", "create": true, "rollup_ms": 501});
    let error = device.ask(ask).await;
    assert_eq!((error.kind(), error["code"].as_str()), ("error", Some("bad_message")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("500"), "{error}");
    let answer = events(&stage, "replay=some").send().await;
    assert_eq!(answer.problem().await, (400, "bad_request".to_owned()));
}

/// A reader that does not read holds nothing back from others, and gets everything later.
#[tokio::test]
async fn a_slow_reader_of_merged_entries_slows_nobody() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run_in("s").await;
    let mut slow = stage.sidecar.connect().await;
    slow.attach_with("s", json!({"replay": "compact", "rollup_ms": 100})).await;
    let mut quick = stage.sidecar.connect().await;
    quick.attach("s").await;
    let words: Vec<String> = (0..200).map(|n| format!("{n}{}", "x".repeat(20_000))).collect();
    for word in &words {
        let data = chunk(word);
        run.upstream.event(&data).await;
        run.caller.arrives(&format!("{data}\n\n")).await;
    }
    run.upstream.event("[DONE]").await;
    let all = quick.collect_until(|entry| entry["text"] == "[DONE]").await;
    assert_eq!(text_of(&all, &run.id), words.concat());
    let all = slow.collect_until(|entry| entry["text"] == "[DONE]").await;
    assert_eq!(text_of(&all, &run.id), words.concat());
}

/// The description of a dialect that only its user knows.
const OWN: &str = r#"
[[dialect]]
name = "own"
counters = ["/n"]
[[dialect.delta]]
when = { at = "/kind", is = "word" }
text = "/word"
[[route]]
match = "POST /chat"
dialect = "own"
"#;

#[tokio::test]
async fn a_dialect_of_the_configuration_is_merged_where_it_is_known_and_left_alone_elsewhere() {
    let mut stage = Stage::with(Store::Redis, OWN).await;
    let mut run = stage.run_in("s").await;
    let word = |n: usize| format!("data: {{\"kind\":\"word\",\"n\":{n},\"word\":\"w{n} \"}}\n\n");
    let words: String = (0..10).map(word).collect();
    run.upstream.write(&words).await;
    run.caller.arrives(&word(9)).await;
    let elsewhere = stage.another_sidecar().await;
    for (sidecar, records) in [(&stage.sidecar, 1), (&elsewhere, 10)] {
        let mut device = sidecar.connect().await;
        device.attach_with("s", json!({"replay": "compact"})).await;
        let entries = device.collect_until_live().await;
        assert_eq!(entries.len(), 1 + records, "{entries:?}");
        let text: String = entries.iter().filter_map(|entry| entry["json"]["word"].as_str()).collect();
        assert_eq!(text, (0..10).map(|n| format!("w{n} ")).collect::<String>());
        assert_eq!(entries.last().unwrap()["json"]["n"], 9);
    }
}
