//! Every recorded answer through the binary, however its bytes come: the direct caller gets them as they are,
//! and the log has what an independent parser reads.

use std::io::Read;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_answer_reaches_the_caller_byte_for_byte_and_the_log_event_for_event() {
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
        let (events, _) = kept(&sidecar, &session, &run).await;
        assert_eq!(events, recording.events_before(recording.body.len()), "{what}");
    });
    let played: Vec<()> = played.buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(played.len(), 3 * 96);
}
