//! The demo page in a real browser, in front of the real binary and the demo agent: what a visitor
//! is promised there is kept. Skipped, and says so, on a machine without a browser.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod control;
mod page;
#[allow(dead_code, unused_imports, reason = "shared with the integration tests")]
#[path = "../support/mod.rs"]
mod support;
mod webdriver;

use std::ops::Range;

use serde::Deserialize;

use crate::page::{ask, open, seen, sidecar_with_page};
use crate::support::{Agent, Asked, ScriptedAgent, until};
use crate::webdriver::Browser;

/// The recording that the demo agent answers a first question with.
const FIRST: &str = "openai-chat__mistral-magistral.sse";

/// The entries of an answer before its first event: the question, the run's start, and that the agent answers.
const BEFORE: u64 = 3;

/// A row of the recordings' index: what others have read from them.
#[derive(Deserialize)]
struct Indexed {
    file: String,
    text_chars: Option<usize>,
    text_sha256: Option<String>,
}

fn index() -> Vec<Indexed> {
    serde_json::from_str(include_str!("../data/sse/visible/index.json")).unwrap()
}

fn text_sha256(file: &str) -> String {
    index().into_iter().find(|row| row.file == file).unwrap().text_sha256.unwrap()
}

/// Asks, and answers with words that the test chooses.
async fn ask_for_words(browser: &Browser, agent: &mut ScriptedAgent, question: &str, which: Range<u32>) -> Asked {
    ask(browser, question, 0).await;
    let mut asked = agent.asked().await;
    asked.sse().await;
    say(&mut asked, which).await;
    asked
}

/// Says one word per event, as an OpenAI chat stream has them.
async fn say(asked: &mut Asked, which: Range<u32>) {
    for n in which {
        asked.event(serde_json::json!({"choices": [{"index": 0, "delta": {"content": words(n..n + 1)}}]})).await;
    }
}

/// What the page shows of these events.
fn words(which: Range<u32>) -> String {
    which.map(|n| format!("word{n} ")).collect()
}

#[tokio::test]
async fn an_answer_streams_in_and_is_the_one_that_was_recorded() {
    let Some(browser) = Browser::start().await else { return };
    let agent = Agent::recordings().await;
    let sidecar = sidecar_with_page(agent.url()).start().await;
    open(&browser, &sidecar).await;
    ask(&browser, "How do I cross the street?", 40).await;
    let early = seen(&browser, "streams", |seen| seen.entries >= 5).await;
    assert_eq!(early.only_run().state, "streaming");
    assert_eq!(early.replayed, 0);
    let end = seen(&browser, "has the whole answer", |seen| seen.all("completed")).await;
    end.assert_exact();
    assert_eq!(end.only_run().text_sha256(), text_sha256(FIRST));
    // What a person sees, and not only what the page knows.
    let shown = format!("{} entries, 0 missing, 0 duplicated", end.entries);
    until(format!("`{shown}`"), async || (browser.seen("#count").await == shown).then_some(())).await;
    assert_eq!(browser.seen(".turn .ask").await, "How do I cross the street?");
    assert_eq!(browser.seen(".turn .state").await, "completed");
    assert_eq!(browser.seen(".turn .dialect").await, "OpenAI Chat");
    assert!(browser.seen(".turn .text").await.starts_with("To cross the street safely, follow these steps:"));
    assert_eq!(agent.received("POST /api/chat").await, 1);
    // Nothing was loaded from anywhere else, and nothing was complained of.
    let elsewhere = "return performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith(location.origin) && !n.startsWith('data:'))";
    assert_eq!(browser.script(elsewhere).await, serde_json::json!([]));
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_reload_in_the_middle_of_an_answer_brings_back_history_and_live_tail() {
    let Some(browser) = Browser::start().await else { return };
    let mut agent = ScriptedAgent::start().await;
    let sidecar = sidecar_with_page(&agent.url()).start().await;
    open(&browser, &sidecar).await;
    let mut answer = ask_for_words(&browser, &mut agent, "Reload me", 0..10).await;
    let before = seen(&browser, "is in the middle", |seen| seen.entries == BEFORE + 10).await;
    browser.click("#reload").await;
    let back = seen(&browser, "is back", |seen| seen.connections == 1 && seen.replayed == BEFORE + 10).await;
    assert_eq!((&back.session, &back.offsets), (&before.session, &before.offsets));
    assert_eq!(back.runs, before.runs);
    say(&mut answer, 10..20).await;
    answer.end().await;
    let end = seen(&browser, "has the whole answer", |seen| seen.all("completed")).await;
    end.assert_exact();
    assert_eq!((end.entries, end.replayed), (BEFORE + 20 + 1, BEFORE + 10), "the rest came live");
    assert_eq!(end.only_run().text, words(0..20));
    assert_eq!(end.only_run().question.as_deref(), Some("Reload me"));
    assert_eq!(agent.count(), 1, "a reload asks nothing");
}

#[tokio::test]
async fn a_second_device_shows_the_same_from_the_start_and_live() {
    let Some(browser) = Browser::start().await else { return };
    let mut agent = ScriptedAgent::start().await;
    let sidecar = sidecar_with_page(&agent.url()).start().await;
    open(&browser, &sidecar).await;
    let mut answer = ask_for_words(&browser, &mut agent, "Two of you", 0..10).await;
    seen(&browser, "is in the middle", |seen| seen.entries == BEFORE + 10).await;
    browser.click("#second").await;
    let tabs = until("the second device", async || Some(browser.tabs().await).filter(|tabs| tabs.len() == 2)).await;
    browser.turn_to(&tabs[1]).await;
    seen(&browser, "has the history", |seen| seen.replayed == BEFORE + 10).await;
    say(&mut answer, 10..20).await;
    answer.end().await;
    let second = seen(&browser, "has the whole answer", |seen| seen.all("completed")).await;
    second.assert_exact();
    assert_eq!((second.entries, second.replayed), (BEFORE + 20 + 1, BEFORE + 10));
    browser.turn_to(&tabs[0]).await;
    let first = seen(&browser, "has the whole answer", |seen| seen.all("completed")).await;
    first.assert_exact();
    assert_eq!((&first.offsets, &first.runs, first.replayed), (&second.offsets, &second.runs, 0));
    assert_eq!(first.only_run().text, words(0..20));
    assert_eq!(agent.count(), 1);
}

#[tokio::test]
async fn a_pulled_connection_resumes_after_the_last_offset_seen() {
    let Some(browser) = Browser::start().await else { return };
    let mut agent = ScriptedAgent::start().await;
    let sidecar = sidecar_with_page(&agent.url()).start().await;
    open(&browser, &sidecar).await;
    let mut answer = ask_for_words(&browser, &mut agent, "Pull the plug", 0..10).await;
    seen(&browser, "is in the middle", |seen| seen.entries == BEFORE + 10).await;
    browser.click("#pull").await;
    let pulled = seen(&browser, "is unplugged", |seen| seen.state == "pulled").await;
    say(&mut answer, 10..20).await;
    let log = format!("/_sidestream/v1/sessions/{}", pulled.session);
    until("an agent that went on", async || {
        let session = sidecar.get(&log).send().await.json().await;
        (session["entries"] == BEFORE + 20).then_some(())
    })
    .await;
    let still = seen(&browser, "can be looked at", |_| true).await;
    assert_eq!((still.entries, still.state.as_str()), (BEFORE + 10, "pulled"), "it has seen nothing of it");
    browser.click("#pull").await;
    let resumed = seen(&browser, "has caught up", |seen| seen.entries == BEFORE + 20).await;
    assert_eq!((resumed.replayed, resumed.connections), (10, 2), "what was missed is replayed, and only that");
    say(&mut answer, 20..30).await;
    answer.end().await;
    let end = seen(&browser, "has the whole answer", |seen| seen.all("completed")).await;
    end.assert_exact();
    assert_eq!((end.entries, end.replayed), (BEFORE + 30 + 1, 10));
    assert_eq!(end.only_run().text, words(0..30));
    assert_eq!(agent.count(), 1);
}

#[tokio::test]
async fn a_sidecar_that_dies_leaves_the_run_interrupted_and_the_page_goes_on() {
    let Some(browser) = Browser::start().await else { return };
    let mut agent = ScriptedAgent::start().await;
    let store = tempfile::tempdir().unwrap();
    let options = sidecar_with_page(&agent.url()).store(format!("file:{}", store.path().display()));
    let mut sidecar = options.start().await;
    open(&browser, &sidecar).await;
    let answer = ask_for_words(&browser, &mut agent, "Die in the middle", 0..10).await;
    let before = seen(&browser, "is in the middle", |seen| seen.entries == BEFORE + 10).await;
    sidecar.process().kill();
    seen(&browser, "has noticed", |seen| seen.state != "live").await;
    drop(answer);
    let sidecar = sidecar.restart().await;
    let after = seen(&browser, "knows the end", |seen| seen.state == "live" && seen.all("interrupted")).await;
    after.assert_exact();
    assert_eq!(after.offsets[..before.offsets.len()], before.offsets);
    assert_eq!((after.entries, after.connections), (BEFORE + 10 + 1, 2));
    assert_eq!(after.only_run().text, words(0..10));
    ask_for_words(&browser, &mut agent, "And again", 0..3).await.end().await;
    let end = seen(&browser, "has another answer", |seen| seen.runs.last().unwrap().state == "completed").await;
    end.assert_exact();
    assert_eq!(end.runs.len(), 2);
    drop(sidecar);
}

#[tokio::test]
async fn a_session_that_was_kept_in_memory_only_starts_over_after_a_restart() {
    let Some(browser) = Browser::start().await else { return };
    let agent = Agent::recordings().await;
    let mut sidecar = sidecar_with_page(agent.url()).start().await;
    open(&browser, &sidecar).await;
    ask(&browser, "Forget me", 0).await;
    seen(&browser, "has the whole answer", |seen| seen.all("completed")).await;
    sidecar.process().kill();
    let sidecar = sidecar.restart().await;
    seen(&browser, "shows nothing that is not in the log", |seen| seen.state == "live" && seen.entries == 0).await;
    ask(&browser, "Once more", 0).await;
    let end = seen(&browser, "has the whole answer", |seen| seen.all("completed")).await;
    end.assert_exact();
    assert_eq!(end.only_run().question.as_deref(), Some("Once more"));
    drop(sidecar);
}

#[tokio::test]
async fn every_recorded_answer_reads_as_its_index_says() {
    let Some(browser) = Browser::start().await else { return };
    let agent = Agent::recordings().await;
    let sidecar = sidecar_with_page(agent.url()).start().await;
    let page = open(&browser, &sidecar).await;
    let streams = index().into_iter().filter(|row| row.file.contains(".sse"));
    let known: Vec<_> = streams.filter(|row| row.text_chars.is_some()).collect();
    let mut runs = Vec::new();
    for row in &known {
        let asked = sidecar.post(format_args!("/replay/{}", row.file)).header("sidestream-session", &page.session);
        let answer = asked.send().await;
        runs.push(answer.header("sidestream-run").to_owned());
        answer.whole().await;
    }
    let all = |seen: &page::Seen| {
        let ended = |run: &&page::Run| run.state != "streaming";
        seen.runs.iter().filter(ended).count() == known.len()
    };
    let end = seen(&browser, "has all answers", all).await;
    end.assert_exact();
    for (row, run) in known.iter().zip(&runs) {
        let shown = end.runs.iter().find(|shown| shown.run.as_ref() == Some(run)).unwrap();
        assert_eq!(Some(shown.text_sha256()), row.text_sha256, "{} reads {:?}", row.file, shown.text);
    }
    assert!(runs.len() > 70);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_question_that_the_agent_cannot_answer_says_why() {
    let Some(browser) = Browser::start().await else { return };
    let sidecar = sidecar_with_page("http://127.0.0.1:1").start().await;
    open(&browser, &sidecar).await;
    ask(&browser, "Anybody there?", 0).await;
    let failed = seen(&browser, "has no answer", |seen| seen.all("failed")).await;
    assert_eq!(failed.only_run().question.as_deref(), Some("Anybody there?"));
    let why = "Ended early: the backend cannot be reached.";
    until("it says why", async || (browser.seen(".turn .trouble").await == why).then_some(())).await;
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_shown_as_it_is() {
    let Some(browser) = Browser::start().await else { return };
    let mut agent = ScriptedAgent::start().await;
    let sidecar = sidecar_with_page(&agent.url()).start().await;
    open(&browser, &sidecar).await;
    ask(&browser, "Plainly", 0).await;
    agent.asked().await.json(r#"{"answer":"forty-two"}"#).await;
    seen(&browser, "has the answer", |seen| seen.all("completed")).await.assert_exact();
    until("it is shown", async || browser.seen(".turn .text").await.contains("forty-two").then_some(())).await;
    assert_eq!(browser.seen(".turn .told").await, "The backend answered 200, and not with a stream.");
}

#[tokio::test]
async fn the_page_fits_a_phone() {
    let Some(browser) = Browser::start().await else { return };
    let agent = Agent::recordings().await;
    let sidecar = sidecar_with_page(agent.url()).start().await;
    browser.screen(320, 640).await;
    open(&browser, &sidecar).await;
    ask(&browser, "An uncommonlylongwordthatgoesonandonandonandonandonandonandonandon", 0).await;
    seen(&browser, "has the whole answer", |seen| seen.all("completed")).await;
    until("the answer on the screen", async || (browser.seen(".turn .state").await == "completed").then_some(())).await;
    let wider = "return [...document.querySelectorAll('body, header, .turns, .dock, .proof')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.className || e.tagName)";
    assert_eq!(browser.script(wider).await, serde_json::json!([]));
    // The log is behind a button there.
    assert_eq!(browser.seen("#rows").await, "");
    browser.click("#toggle").await;
    assert!(browser.seen("#rows").await.contains("run completed"));
}
