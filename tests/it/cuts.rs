//! An upstream that dies, after every byte of its answer: nobody takes a part for the whole, and nobody gets a
//! part of an event.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;

use super::fidelity::kept;
use crate::support::{End, Ending, Play, Player, ROUTES, Recording, Sidecar, recordings, whole_part};

/// Answers under way at once.
const AT_ONCE: usize = 16;

/// Set: every byte of every recording is a cut (minutes); else as many as fit into a run of all tests.
const EVERY_BYTE: &str = "SIDESTREAM_TEST_EVERY_BYTE";

/// Cuts of one recording in a run of all tests.
const CUTS: usize = 60;

/// A long one beside the short ones, for a part of its cuts.
const LONG: &str = "openai-chat__deepseek-reasoning_content.sse";

/// The shortest recording of each dialect (by the part of its name before `__`), and a long one.
fn one_of_each_dialect() -> Vec<Recording> {
    let mut shortest = BTreeMap::<String, Recording>::new();
    for recording in recordings() {
        let dialect = recording.file.split_once("__").unwrap().0.to_owned();
        let known = shortest.entry(dialect).or_insert_with(|| recording.clone());
        if recording.body.len() < known.body.len() {
            *known = recording;
        }
    }
    assert!(shortest.len() >= 20, "{:?}", shortest.keys());
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
    let all = one_of_each_dialect();
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
