//! Recorded answers of real services, through a real backend, the binary and a real store: what
//! every kind of reader gets is event for event what an independent parser reads from the recording.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rstest::rstest;
use serde_json::Value;

use crate::support::{
    Agent, End, Event, Message, Recording, RunningStore, Sidecar, SseClient, Store, events_in, events_in_after,
    events_of, recordings, terminal_of,
};

/// Recordings under way at once.
const AT_ONCE: usize = 4;

/// A recording that was replayed through the sidecar.
struct Replayed {
    recording: Recording,
    events: Vec<Event>,
    session: String,
    run: String,
    /// Every entry of the session, as a client saw them live.
    live: Vec<Message>,
}

/// Everything that the tests of this module share.
struct Scene {
    sidecar: Sidecar,
    agent: Agent,
    _store: RunningStore,
}

impl Scene {
    async fn on(store: Store) -> Self {
        let (agent, store) = (Agent::recordings().await, store.start());
        let sidecar = Sidecar::of(agent.url()).store(store.url()).start().await;
        Scene { sidecar, agent, _store: store }
    }

    /// Asks for the recording, with a device attached before the session exists.
    async fn replay(&self, recording: Recording) -> Replayed {
        let file = &recording.file;
        let session = file.replace("__", ".");
        // A client switches by turning its own URL into a WebSocket's.
        let mut device = self.sidecar.connect_to(&format!("/replay/{file}")).await;
        assert_eq!(device.subprotocol.as_deref(), Some("sidestream.v1"));
        device.attach(&session).await;
        let ask = self.sidecar.post(format!("/replay/{file}")).header("sidestream-session", &session);
        let caller = ask.send().await;
        assert_eq!(caller.header("sidestream-session"), session);
        let run = caller.header("sidestream-run").to_owned();
        let started = caller.header("sidestream-offset").to_owned();
        assert!(caller.headers.get("content-encoding").is_none());
        let (body, end) = caller.whole().await;
        assert_eq!(end, End::Clean, "{file}: the direct caller");
        assert!(body == recording.body, "{file}: the direct caller got other bytes");
        let live = device.collect_until_terminal(&run).await;
        assert_eq!(live[0]["offset"], started, "{file}");
        let events = recording.events();
        Replayed { recording, events, session, run, live }
    }
}

impl Replayed {
    /// Checks what a reader read of the whole run.
    #[track_caller]
    fn assert_whole(&self, who: &str, entries: &[Message]) {
        self.assert_events(who, &events_of(entries, &self.run, ""), &self.events);
        let terminal = terminal_of(entries, &self.run);
        let failed = matches!(self.recording.known()["outcome"].as_str(), Some("failed" | "truncated"));
        assert_eq!(terminal["state"], if failed { "failed" } else { "completed" }, "{}: {who}", self.recording.file);
        assert_eq!(terminal["events"], self.events.len(), "{}: {who}", self.recording.file);
    }

    #[track_caller]
    fn assert_events(&self, who: &str, read: &[Event], expected: &[Event]) {
        let file = &self.recording.file;
        assert_eq!(read.len(), expected.len(), "{file}: {who}: the number of events");
        for (i, (read, expected)) in read.iter().zip(expected).enumerate() {
            // JSON data travels as a member of a message: blanks around the value are not part of it.
            let same = read.name == expected.name && read.id == expected.id && read.data.trim() == expected.data.trim();
            assert!(same, "{file}: {who}: event {i} is {read:?} and should be {expected:?}");
        }
    }

    /// Checks that two readers of the log saw the same entries.
    #[track_caller]
    fn assert_entries(&self, who: &str, read: &[Message], expected: &[Message]) {
        let entries = |messages: &[Message]| messages.iter().map(Message::entry).collect::<Vec<Value>>();
        assert_eq!(entries(read), entries(expected), "{}: {who}", self.recording.file);
    }

    /// Some offsets: the first, the last, and what lies between them.
    fn sample(&self) -> impl Iterator<Item = usize> {
        let last = self.live.len() - 1;
        let mut sample = vec![0, 1, last / 3, last / 2, last - 1, last];
        sample.sort_unstable();
        sample.dedup();
        sample.into_iter()
    }

    /// The last event id that a reader has after the entry at `index`.
    fn id_after(&self, index: usize) -> String {
        events_of(&self.live[..=index], &self.run, "").last().map(|event| event.id.clone()).unwrap_or_default()
    }

    /// How its run ends where it is given again: half an answer is not given as a whole one.
    fn end(&self) -> End {
        if self.recording.known()["outcome"] == "truncated" { End::Aborted } else { End::Clean }
    }

    fn run_path(&self) -> String {
        format!("/_sidestream/v1/sessions/{}/runs/{}/stream", self.session, self.run)
    }

    fn events_path(&self) -> String {
        format!("/_sidestream/v1/sessions/{}/events", self.session)
    }
}

/// Does `check` with every recorded event stream, some at once.
async fn with_every_recording(scene: &Scene, check: impl AsyncFn(Replayed)) {
    let all: Vec<Recording> = recordings().into_iter().filter(Recording::is_sse).collect();
    assert_eq!(all.len(), 92);
    let check = &check;
    let checks = stream::iter(all).map(|recording| async move { check(scene.replay(recording).await).await });
    checks.buffer_unordered(AT_ONCE).collect::<()>().await;
}

#[rstest]
#[tokio::test]
async fn every_reader_of_a_recording_gets_what_an_independent_parser_reads(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let scene = Scene::on(store).await;
    with_every_recording(&scene, async |replayed| {
        replayed.assert_whole("a device that was there before", &replayed.live);

        let mut late = scene.sidecar.connect().await;
        late.attach(&replayed.session).await;
        let replay = late.collect_until_live().await;
        replayed.assert_whole("a device that comes late", &replay);
        replayed.assert_entries("a device that comes late", &replay, &replayed.live);

        // Without a cursor its deltas would be merged.
        let path = format!("{}?after={}", replayed.run_path(), replayed.live[0].offset());
        let (events, end) = SseClient::new(scene.sidecar.get(path).send().await).rest().await;
        assert_eq!(end, replayed.end(), "{}: its run as SSE", replayed.recording.file);
        assert_eq!(events, replayed.events, "{}: its run as SSE", replayed.recording.file);

        let pages = scene.sidecar.pages(&replayed.session, "start", 7).await;
        replayed.assert_entries("JSON pages", &pages, &replayed.live);

        let path = format!("{}?live=0", replayed.events_path());
        let (events, end) = SseClient::new(scene.sidecar.get(path).send().await).rest().await;
        assert_eq!(end, End::Clean, "{}: its session as SSE", replayed.recording.file);
        replayed.assert_entries("its session as SSE", &messages(&events), &replayed.live);
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_resume_at_any_offset_of_a_recording_brings_exactly_the_rest(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let scene = Scene::on(store).await;
    with_every_recording(&scene, async |replayed| {
        for index in replayed.sample() {
            let offset = replayed.live[index].offset();
            let (rest, id) = (&replayed.live[index + 1..], replayed.id_after(index));
            let who = |form: &str| format!("{form} after entry {index} ({offset})");

            let mut device = scene.sidecar.connect().await;
            device.attach_after(&replayed.session, offset.to_string()).await;
            let read = device.collect_until_live().await;
            replayed.assert_entries(&who("WebSocket"), &read, rest);
            replayed.assert_events(
                &who("WebSocket"),
                &events_of(&read, &replayed.run, &id),
                &events_of(rest, &replayed.run, &id),
            );

            let ask = scene.sidecar.get(format!("{}?live=0", replayed.events_path()));
            let (events, _) = SseClient::new(ask.header("last-event-id", offset).send().await).rest().await;
            replayed.assert_entries(&who("SSE with Last-Event-ID"), &messages(&events), rest);

            let pages = scene.sidecar.pages(&replayed.session, &offset.to_string(), 100).await;
            replayed.assert_entries(&who("JSON pages"), &pages, rest);

            let answer = scene.sidecar.get(format!("{}?after={offset}", replayed.run_path())).send().await;
            let expected = events_of(rest, &replayed.run, &id);
            if expected.is_empty() {
                assert_eq!(answer.status, 204, "{}: {}", replayed.recording.file, who("the run as SSE"));
                continue;
            }
            let (body, end) = answer.whole().await;
            assert_eq!(end, replayed.end(), "{}: {}", replayed.recording.file, who("the run as SSE"));
            replayed.assert_events(&who("the run as SSE"), &events_in_after(&id, &body), &expected);
        }
    })
    .await;
}

#[tokio::test]
async fn a_recording_that_is_no_event_stream_passes_through_and_is_not_kept_unless_its_head_says_what_it_is() {
    let scene = Scene::on(Store::Embedded).await;
    let mut kept = 0;
    for recording in recordings().into_iter().filter(|recording| !recording.is_sse()) {
        let answer = scene.sidecar.post(format!("/replay/{}", recording.file)).send().await;
        let shown = answer.headers.contains_key("x-vercel-ai-data-stream");
        assert_eq!(answer.headers.contains_key("sidestream-session"), shown, "{}", recording.file);
        kept += usize::from(shown);
        assert_eq!(answer.whole().await, (recording.body, End::Clean), "{}", recording.file);
    }
    let sessions = scene.sidecar.admin("/sessions").await.json().await;
    assert_eq!((kept, sessions["sessions"].as_array().unwrap().len()), (2, 2), "{sessions}");
}

/// Known failure 32.
#[rstest]
#[case::compressed("gzip=1")]
#[case::in_small_writes("write=100")]
#[tokio::test]
async fn an_answer_that_is_compressed_or_cut_anywhere_is_the_same_answer(#[case] how: &str) {
    let scene = Scene::on(Store::Embedded).await;
    for recording in recordings().into_iter().filter(|recording| recording.is_sse()).step_by(9) {
        let answer = scene.sidecar.post(format!("/replay/{}?{how}", recording.file)).send().await;
        let (session, run) =
            (answer.header("sidestream-session").to_owned(), answer.header("sidestream-run").to_owned());
        let (body, end) = answer.whole().await;
        assert_eq!((end, body == recording.body), (End::Clean, true), "{}", recording.file);
        let mut device = scene.sidecar.connect().await;
        device.attach(&session).await;
        let read = events_of(&device.collect_until_terminal(&run).await, &run, "");
        assert_eq!(read.len(), recording.events().len(), "{}", recording.file);
    }
}

#[tokio::test]
async fn what_is_not_utf8_or_no_event_is_read_as_the_standard_says() {
    let scene = Scene::on(Store::Embedded).await;
    for fault in ["non-utf8", "malformed"] {
        let straight = crate::support::Ask::post(scene.agent.url(), format!("/fault/{fault}")).send().await;
        let (expected, _) = straight.whole().await;
        let answer = scene.sidecar.post(format!("/fault/{fault}")).send().await;
        let (session, run) =
            (answer.header("sidestream-session").to_owned(), answer.header("sidestream-run").to_owned());
        let (body, end) = answer.whole().await;
        assert_eq!((body, end), (expected.clone(), End::Clean), "{fault}: the direct caller's bytes");
        let mut device = scene.sidecar.connect().await;
        device.attach(&session).await;
        let read = events_of(&device.collect_until_terminal(&run).await, &run, "");
        assert_eq!(read, events_in(&expected), "{fault}");
        let path = format!("/_sidestream/v1/sessions/{session}/runs/{run}/stream");
        let (again, _) = SseClient::new(scene.sidecar.get(path).send().await).rest().await;
        assert_eq!(again, events_in(&expected), "{fault}: as SSE");
    }
}

/// The messages of a session's stream, each of which has its offset as id.
fn messages(events: &[Event]) -> Vec<Message> {
    let message = |event: &Event| {
        let message = Message::parse(&event.data);
        assert_eq!(event.id, message.offset().to_string());
        message
    };
    events.iter().filter(|event| event.name == "message").map(message).collect()
}

#[test]
fn a_reader_that_resumes_knows_its_last_event_id() {
    let stream = Bytes::from("data: a\n\nid: 2\ndata: b\n\n");
    let ids: Vec<String> = events_in_after("1", &stream).into_iter().map(|event| event.id).collect();
    assert_eq!(ids, ["1", "2"]);
}
