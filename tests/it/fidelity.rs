//! Every recorded answer through the binary, however its bytes come: the direct caller gets them as they are,
//! and the log has what an independent parser reads; the text and the end that others saw in it are there, too.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sidestream::dialect::{Dialect, Dialects, TextKind};

use crate::support::{
    End, Ending, Event, Play, Player, ROUTES, Recording, Sidecar, events_of, recordings, terminal_of, until,
};

/// Answers under way at once.
const AT_ONCE: usize = 16;

/// The body as the upstream sends it: recordings of compressed answers are sent compressed.
fn as_recorded(recording: &Recording) -> (Bytes, &'static str) {
    if !recording.file.ends_with(".gz") {
        return (recording.body.clone(), "");
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sse/visible");
    let mut bytes = Vec::new();
    std::fs::File::open(folder.join(&recording.file)).unwrap().read_to_end(&mut bytes).unwrap();
    (bytes.into(), "content-encoding: gzip\r\n")
}

/// What the log has of a run that was answered, and how it ended.
pub(super) async fn kept(sidecar: &Sidecar, session: &str, run: &str) -> (Vec<Event>, serde_json::Value) {
    let entries = until(format!("the end of {run}"), async || {
        let entries = sidecar.entries(session).await;
        entries.iter().any(|entry| entry.is_terminal()).then_some(entries)
    })
    .await;
    (events_of(&entries, run, ""), terminal_of(&entries, run).entry())
}

/// The answer that is in these events, by the description of their dialect: what they add; where events repeat
/// everything, what the last of each kind has.
fn answer(dialect: &Dialect, events: &[Event]) -> String {
    let mut answer = String::new();
    let mut repeated: BTreeMap<String, String> = BTreeMap::new();
    for event in events {
        let name = Some(event.name.as_str()).filter(|name| *name != "message");
        let Some(cumulative) = dialect.cumulative.iter().find(|all| all.when.is_shown_by(name, &event.data)) else {
            let texts = dialect.texts(name, &event.data).into_iter().filter(|text| text.kind == TextKind::Answer);
            answer.extend(texts.map(|text| text.text));
            continue;
        };
        let json: Value = serde_json::from_str(&event.data).unwrap();
        let at = |path: &sidestream::dialect::Path| path.find(&json, &[]).into_iter().map(|(_, v)| v.clone());
        let same: Vec<_> = cumulative.same.iter().flat_map(at).collect();
        let texts = cumulative.text.iter().flat_map(at).filter_map(|value| value.as_str().map(str::to_owned));
        repeated.insert(format!("{same:?}"), texts.collect());
    }
    answer.extend(repeated.into_values());
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_answer_reaches_the_caller_byte_for_byte_and_the_log_event_for_event() {
    let dialects = Dialects::new([]);
    let player = Player::start().await;
    let sidecar = Sidecar::of(player.url()).config(ROUTES).start().await;
    let plays = recordings().into_iter().flat_map(|recording| [1, 7, 64 << 10].map(|chunk| (recording.clone(), chunk)));
    let played = stream::iter(plays).map(async |(recording, chunk)| {
        let what = format!("{} in chunks of {chunk}", recording.file);
        let path = format!("{}/{chunk}", recording.path());
        let (body, coding) = as_recorded(&recording);
        let head = format!("content-type: {}\r\n{coding}", recording.content_type());
        player.plays(&path, Play { head, body, chunk, end: Ending::LastChunk, told: None });
        let caller = sidecar.post(&path).send().await;
        assert_eq!(caller.header("content-type"), recording.content_type(), "{what}");
        let (session, run) =
            (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
        let (body, end) = caller.whole().await;
        assert!(body == recording.body, "{what}: the direct caller got other bytes");
        assert_eq!(end, End::Clean, "{what}");
        let (events, terminal) = kept(&sidecar, &session, &run).await;
        assert_eq!(events, recording.events_before(recording.body.len()), "{what}");
        let known = recording.known();
        let (state, reason, mark) = match known["outcome"].as_str().unwrap() {
            "finished" => ("completed", "end", Some("marker")),
            "truncated" => ("failed", "truncated", None),
            // Some say that they have failed and end in order all the same.
            "failed" => ("failed", "error_event", terminal["end"].as_str()),
            _ => ("completed", "end", Some("unverified")),
        };
        assert_eq!((&terminal["state"], &terminal["reason"]), (&json!(state), &json!(reason)), "{what}: {terminal}");
        assert_eq!(terminal["end"].as_str(), mark, "{what}: {terminal}");
        let shown = (recording.dialect() != "generic").then(|| recording.dialect());
        assert_eq!(terminal["dialect"].as_str(), shown, "{what}: {terminal}");
        // The text of these is in one response, as a whole: nothing of it grows.
        if let (Some(sha256), false) = (known["text_sha256"].as_str(), recording.dialect() == "mcp") {
            let answer = answer(dialects.named(recording.dialect()).unwrap(), &events);
            let digest: String = Sha256::digest(&answer).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, sha256, "{what}: {answer}");
        }
    });
    let played: Vec<()> = played.buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(played.len(), 3 * 96);
}
