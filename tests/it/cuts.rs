//! An upstream that dies, after every byte of its answer: nobody takes a part for the whole, and nobody gets a
//! part of an event.

use std::collections::BTreeMap;
use std::fmt::Write;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::fidelity::kept;
use crate::support::{End, Ending, Event, Play, Player, ROUTES, Recording, Sidecar, recordings, whole_part};

/// Answers under way at once.
const AT_ONCE: usize = 16;

/// Set: every byte of every recording is a cut (minutes); else as many as fit into a run of all tests.
const EVERY_BYTE: &str = "TEST_EVERY_BYTE";

/// Cuts of one recording in a run of all tests.
const CUTS: usize = 60;

/// A long one beside the short ones, for a part of its cuts.
const LONG: &str = "openai-chat__deepseek-reasoning_content.sse";

/// The shortest of these recordings of each dialect, and a long one.
fn one_of_each_dialect(which: impl Fn(&Recording) -> bool) -> Vec<Recording> {
    let mut shortest = BTreeMap::<String, Recording>::new();
    for recording in recordings().into_iter().filter(which) {
        let known = shortest.entry(recording.dialect().to_owned()).or_insert_with(|| recording.clone());
        if recording.body.len() < known.body.len() {
            *known = recording;
        }
    }
    assert!(shortest.len() >= 19, "{:?}", shortest.keys());
    shortest.into_values().chain(recordings().into_iter().filter(|recording| recording.file == LONG)).collect()
}

/// After how many bytes to cut: all, or some and those around the ends of events.
fn cuts(recording: &Recording) -> Vec<usize> {
    let length = recording.body.len();
    if std::env::var_os(EVERY_BYTE).is_some() && recording.file != LONG {
        return (0..=length).collect();
    }
    let ends = (0..=length).filter(|cut| {
        let whole = |cut: &usize| whole_part(&recording.file, &recording.body[..*cut]);
        *cut > 0 && whole(cut) != whole(&(cut - 1))
    });
    // A prime step: it meets every place in a line sooner or later.
    let step = [1, 3, 7, 13, 29, 61, 127, 251].into_iter().find(|step| length / step <= CUTS / 2).unwrap_or(509);
    let mut cuts: Vec<usize> =
        ends.flat_map(|end| [end - 1, end]).take(CUTS / 2).chain((0..length).step_by(step)).collect();
    cuts.push(length);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

async fn cut_everywhere(end: Ending) {
    let player = Player::start().await;
    let sidecar = Sidecar::of(player.url()).config(ROUTES).start().await;
    let all = one_of_each_dialect(|_| true);
    let cuts = all.iter().flat_map(|recording| cuts(recording).into_iter().map(move |cut| (recording, cut)));
    let cut = stream::iter(cuts).map(async |(recording, cut)| {
        let what = format!("{} cut after {cut} bytes ({end:?})", recording.file);
        let path = format!("{}/{cut}", recording.path());
        let head = format!("content-type: {}\r\n", recording.content_type());
        let (now, told) = oneshot::channel();
        player.plays(&path, Play { head, body: recording.body.slice(..cut), chunk: 4096, end, told: Some(told) });
        let mut caller = sidecar.post(&path).send().await;
        let run = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
        let whole = whole_part(&recording.file, &recording.body[..cut]);
        // What is whole is there before the upstream dies: a reset may destroy what nobody has read yet.
        while caller.arrived().len() < whole {
            caller.more().await.unwrap();
        }
        now.send(()).unwrap();
        let (body, ended) = caller.whole().await;
        assert_eq!(ended, End::Aborted, "{what}");
        assert!(body[..] == recording.body[..whole], "{what}: {:?}", String::from_utf8_lossy(&body));
        let (events, terminal) = kept(&sidecar, &run.0, &run.1).await;
        assert_eq!(events, recording.events_before(cut), "{what}");
        assert_eq!((&terminal["state"], &terminal["reason"]), (&"failed".into(), &"upstream_reset".into()), "{what}");
    });
    let cut: Vec<()> = cut.buffer_unordered(AT_ONCE).collect().await;
    assert!(cut.len() > 20 * 20, "{}", cut.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_closes_within_its_answer_never_makes_a_whole_of_a_part() {
    cut_everywhere(Ending::Close).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_resets_within_its_answer_never_makes_a_whole_of_a_part() {
    cut_everywhere(Ending::Reset).await;
}

/// Whether the answer is whole with this event, by the words that such events have on the wire; `None`: nothing in
/// the stream says so.
fn is_whole_with(dialect: &str, event: &Event) -> Option<bool> {
    let words = match dialect {
        "generic" | "langgraph" => return None,
        "ai-sdk-4" => return Some(event.name == "d"),
        "a2a" => &["TASK_STATE_COMPLETED"][..],
        "ag-ui" => &["\"RUN_FINISHED\""],
        "ai-sdk" => &["\"finish\"", "[DONE]"],
        "anthropic-messages" => &["\"message_stop\""],
        "cohere" => &["\"message-end\""],
        "dify" => &["\"message_end\""],
        "flowise" => &["\"event\":\"end\""],
        "gemini" | "gemini-array" => &["\"finishReason\""],
        "gemini-interactions" => &["\"interaction.completed\""],
        "librechat" => &["\"final\":true"],
        "mcp" => &["\"result\""],
        "ollama" => &["\"done\":true"],
        "openai-chat" | "openai-completions" => &["[DONE]", "\"finish_reason\":\""],
        "openai-responses" => &["\"type\":\"response.completed\""],
        other => unreachable!("{other}"),
    };
    let data: String = event.data.split_whitespace().collect();
    Some(words.iter().any(|word| data.contains(word)))
}

/// The wire says that the body is complete: nobody can tell the caller otherwise.
async fn end_everywhere(end: Ending) {
    let all = one_of_each_dialect(|recording| {
        let outcome = recording.known()["outcome"].clone();
        outcome != "failed" && outcome != "truncated"
    });
    let mut routes = String::new();
    for dialect in all.iter().map(Recording::dialect) {
        writeln!(routes, "[[route]]\nmatch = \"POST /{dialect}/*\"\ndialect = [\"{dialect}\"]").unwrap();
    }
    let player = Player::start().await;
    let sidecar = Sidecar::of(player.url()).config(&routes).start().await;
    let cuts = all.iter().flat_map(|recording| cuts(recording).into_iter().map(move |cut| (recording, cut)));
    let ended = stream::iter(cuts).map(async |(recording, cut)| {
        let what = format!("{} ended after {cut} bytes ({end:?})", recording.file);
        let path = format!("/{}/{cut}/{}", recording.dialect(), recording.file);
        let head = format!("content-type: {}\r\n", recording.content_type());
        player.plays(&path, Play { head, body: recording.body.slice(..cut), chunk: 4096, end, told: None });
        let caller = sidecar.post(&path).send().await;
        let run = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
        let (body, ended) = caller.whole().await;
        assert_eq!(ended, End::Clean, "{what}");
        assert!(body[..] == recording.body[..cut], "{what}: {:?}", String::from_utf8_lossy(&body));
        let (events, terminal) = kept(&sidecar, &run.0, &run.1).await;
        assert_eq!(events, recording.events_to(cut), "{what}");
        let marks: Vec<_> = events.iter().map(|event| is_whole_with(recording.dialect(), event)).collect();
        let marked = !matches!(recording.dialect(), "generic" | "langgraph");
        let (state, reason, mark) = match marks.contains(&Some(true)) {
            true => ("completed", "end", json!("marker")),
            false if marked => ("failed", "truncated", Value::Null),
            false => ("completed", "end", json!("unverified")),
        };
        assert_eq!((&terminal["state"], &terminal["reason"]), (&json!(state), &json!(reason)), "{what}: {terminal}");
        let framing = if end == Ending::Connection { "close" } else { "delimited" };
        assert_eq!((&terminal["end"], &terminal["framing"]), (&mark, &json!(framing)), "{what}: {terminal}");
        state
    });
    let ended: Vec<_> = ended.buffer_unordered(AT_ONCE).collect().await;
    assert!(ended.contains(&"completed") && ended.contains(&"failed") && ended.len() > 20 * 20, "{}", ended.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_ends_with_its_connection_before_its_dialects_end_is_truncated() {
    end_everywhere(Ending::Connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_ends_as_http_says_before_its_dialects_end_is_truncated() {
    end_everywhere(Ending::LastChunk).await;
}
