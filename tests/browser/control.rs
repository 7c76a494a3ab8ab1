//! Several devices at one session: what is asked, stopped, queued and withdrawn on one of them is so
//! on all, and everybody sees who is here.

use crate::page::{Seen, ask, open, open_at, seen, sidecar_with_page};
use crate::support::{Agent, ScriptedAgent, Sidecar, until};
use crate::webdriver::Browser;
use crate::{ask_for_words, say, words};

/// Two devices at one session, and an agent that does what the test says.
struct Two {
    browser: Browser,
    devices: [String; 2],
    agent: ScriptedAgent,
    _sidecar: Sidecar,
}

impl Two {
    /// The page, and a second one that was opened by its link. The first is in front.
    async fn start() -> Option<Self> {
        let browser = Browser::start().await?;
        let agent = ScriptedAgent::start().await;
        let sidecar = sidecar_with_page(&agent.url()).start().await;
        open(&browser, &sidecar).await;
        browser.click("#second").await;
        let tabs = until("the second device", async || browser.tabs().await.try_into().ok());
        let two = Two { devices: tabs.await, browser, agent, _sidecar: sidecar };
        for device in [1, 0] {
            two.seen(device, "sees both", |seen| seen.state == "live" && seen.here.len() == 2).await;
        }
        Some(two)
    }

    /// Turns to a device, and waits until it is as `is` says.
    async fn seen(&self, device: usize, what: &str, is: impl Fn(&Seen) -> bool) -> Seen {
        self.browser.turn_to(&self.devices[device]).await;
        seen(&self.browser, what, is).await
    }
}

/// The states of the answers, in the order in which they were asked for.
fn states(seen: &Seen) -> Vec<&str> {
    seen.runs.iter().map(|run| run.state.as_str()).collect()
}

#[tokio::test]
async fn a_question_asked_on_one_device_is_seen_on_the_other() {
    let Some(mut two) = Two::start().await else { return };
    let name = two.seen(0, "has a name", |_| true).await.name;
    let mut answer = ask_for_words(&two.browser, &mut two.agent, "From here to there", 0..3).await;
    let there = two.seen(1, "streams", |seen| seen.runs.first().is_some_and(|run| run.text == words(0..3))).await;
    assert_eq!(there.only_run().question.as_deref(), Some("From here to there"));
    assert_eq!(there.only_run().client.as_ref(), Some(&name));
    until("who asked", async || (two.browser.seen(".turn .by").await == name).then_some(())).await;
    say(&mut answer, 3..5).await;
    answer.end().await;
    for device in [1, 0] {
        let end = two.seen(device, "has the whole answer", |seen| seen.all("completed")).await;
        end.assert_exact();
        assert_eq!(end.only_run().text, words(0..5));
    }
}

#[tokio::test]
async fn stop_on_the_other_device_ends_the_answer_on_both_and_closes_the_agents_connection() {
    let Some(mut two) = Two::start().await else { return };
    let mut answer = ask_for_words(&two.browser, &mut two.agent, "Never mind", 0..5).await;
    let other = two.seen(1, "streams", |seen| seen.runs.first().is_some_and(|run| run.text == words(0..5))).await;
    until("a button to stop", async || (two.browser.seen("#stop").await == "Stop").then_some(())).await;
    two.browser.click("#stop").await;
    answer.closed_by_the_sidecar().await;
    let acknowledged = "Stopped: the upstream connection is closed.";
    let stopped = two.seen(1, "is told", |seen| seen.runs[0].trouble == acknowledged).await;
    assert_eq!((states(&stopped), stopped.unanswered), (vec!["cancelled"], 0));
    until("it is shown", async || (two.browser.seen(".turn .state").await == "stopped").then_some(())).await;
    assert_eq!(two.browser.seen("#stop").await, "", "there is nothing left to stop");
    let first = two.seen(0, "has stopped", |seen| seen.all("cancelled")).await;
    assert_eq!(first.only_run().trouble, format!("Stopped by {}.", other.name));
    first.assert_exact();
    assert_eq!(first.offsets, stopped.offsets);
}

#[tokio::test]
async fn a_follow_up_waits_its_turn_on_both_devices_and_then_runs() {
    let Some(mut two) = Two::start().await else { return };
    let first = ask_for_words(&two.browser, &mut two.agent, "One", 0..3).await;
    two.seen(0, "streams", |seen| states(seen) == ["streaming"]).await;
    ask(&two.browser, "Two", 0).await;
    for device in [0, 1] {
        let waits = two.seen(device, "shows what waits", |seen| seen.waiting.len() == 1).await;
        assert_eq!(states(&waits), ["streaming"], "it is no answer yet");
        let question = |seen: &Seen| seen.waiting[0].question.as_deref() == Some("Two");
        two.seen(device, "shows what it says", question).await;
        until("it is seen", async || two.browser.seen("#waiting").await.contains("Two").then_some(())).await;
    }
    assert_eq!(two.agent.count(), 1);
    first.end().await;
    let mut second = two.agent.asked().await;
    second.sse().await;
    say(&mut second, 3..6).await;
    second.end().await;
    for device in [1, 0] {
        let end = two.seen(device, "has both answers", |seen| states(seen) == ["completed"; 2]).await;
        end.assert_exact();
        assert_eq!((end.runs[1].question.as_deref(), &end.runs[1].text), (Some("Two"), &words(3..6)));
        two.seen(device, "has nothing that waits", |seen| seen.waiting.is_empty()).await;
    }
    assert_eq!(two.agent.count(), 2);
}

#[tokio::test]
async fn a_device_that_comes_later_sees_what_waits() {
    let Some(mut two) = Two::start().await else { return };
    let _answer = ask_for_words(&two.browser, &mut two.agent, "One", 0..3).await;
    ask(&two.browser, "Two", 0).await;
    two.seen(0, "shows what waits", |seen| seen.waiting.len() == 1).await;
    two.browser.turn_to(&two.devices[1]).await;
    two.browser.click("#reload").await;
    let question = |seen: &Seen| seen.waiting.first().is_some_and(|item| item.question.as_deref() == Some("Two"));
    two.seen(1, "shows what waits", question).await;
}

#[tokio::test]
async fn a_follow_up_that_waits_is_withdrawn_from_the_other_device() {
    let Some(mut two) = Two::start().await else { return };
    let first = ask_for_words(&two.browser, &mut two.agent, "One", 0..3).await;
    two.seen(0, "streams", |seen| states(seen) == ["streaming"]).await;
    ask(&two.browser, "Two", 0).await;
    two.seen(1, "shows what waits", |seen| seen.waiting.len() == 1).await;
    let button = "#waiting button:last-child";
    until("its button", async || (two.browser.seen("#waiting").await.contains("Withdraw")).then_some(())).await;
    two.browser.click(button).await;
    for device in [1, 0] {
        two.seen(device, "has nothing that waits", |seen| seen.waiting.is_empty() && seen.unanswered == 0).await;
    }
    first.end().await;
    for device in [0, 1] {
        let end = two.seen(device, "has the first answer", |seen| seen.all("completed")).await;
        assert_eq!(end.runs.len(), 1);
    }
    // Had it begun, it would have begun before this one.
    ask_for_words(&two.browser, &mut two.agent, "Three", 0..1).await.end().await;
    let end = two.seen(1, "has another answer", |seen| states(seen) == ["completed"; 2]).await;
    assert_eq!(end.runs[1].question.as_deref(), Some("Three"));
    assert_eq!(two.agent.count(), 2);
}

#[tokio::test]
async fn a_follow_up_may_interrupt_the_answer_at_once_or_when_it_has_waited_enough() {
    let Some(mut two) = Two::start().await else { return };
    let mut first = ask_for_words(&two.browser, &mut two.agent, "One", 0..3).await;
    two.seen(0, "streams", |seen| states(seen) == ["streaming"]).await;
    two.browser.script("document.getElementById('busy').value = 'interrupt'").await;
    let mut second = ask_for_words(&two.browser, &mut two.agent, "Two", 3..5).await;
    first.closed_by_the_sidecar().await;
    two.seen(1, "shows both", |seen| states(seen) == ["cancelled", "streaming"]).await;
    ask(&two.browser, "Three", 0).await;
    two.seen(0, "shows what waits", |seen| seen.waiting.len() == 1).await;
    until("its button", async || (two.browser.seen("#waiting").await.contains("Ask now")).then_some(())).await;
    two.browser.click("#waiting button").await;
    second.closed_by_the_sidecar().await;
    let mut third = two.agent.asked().await;
    third.sse().await;
    third.end().await;
    for device in [0, 1] {
        let end = two.seen(device, "has the last answer", |seen| states(seen).last() == Some(&"completed")).await;
        assert_eq!(states(&end), ["cancelled", "cancelled", "completed"]);
        end.assert_exact();
    }
}

#[tokio::test]
async fn devices_see_who_is_here_and_who_types_and_one_that_is_closed_vanishes() {
    let (Some(mine), Some(theirs)) = (Browser::start().await, Browser::start().await) else { return };
    let agent = ScriptedAgent::start().await;
    let sidecar = sidecar_with_page(&agent.url()).start().await;
    let me = open(&mine, &sidecar).await;
    let they = open_at(&theirs, &sidecar, &me.session).await;
    let theirs_is = |doing: &'static str| {
        let name = they.name.clone();
        move |seen: &Seen| seen.here.iter().any(|who| who.client == name && who.doing == doing)
    };
    seen(&mine, "sees the other", theirs_is("here")).await;
    seen(&theirs, "sees both", |seen| seen.here.len() == 2).await;
    theirs.type_into("#message", "What about").await;
    seen(&mine, "sees it type", theirs_is("typing")).await;
    let typing = format!("{} is typing", they.name);
    until(&typing, async || (mine.seen("#here").await == typing).then_some(())).await;
    // Its name is what its owner wants it to be.
    theirs.script("const name = document.getElementById('name'); name.value = 'my phone'; name.onchange()").await;
    let renamed = |seen: &Seen| seen.here.len() == 2 && seen.here.iter().any(|who| who.client == "my-phone");
    seen(&mine, "sees its new name", renamed).await;
    drop(theirs);
    let alone = seen(&mine, "is alone", |seen| seen.here.len() == 1).await;
    assert_eq!(alone.here[0].client, me.name);
    until("nobody else", async || mine.seen("#here").await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_question_asked_while_unplugged_is_asked_once_whatever_happens_to_the_page() {
    let Some(browser) = Browser::start().await else { return };
    let mut agent = ScriptedAgent::start().await;
    let sidecar = sidecar_with_page(&agent.url()).start().await;
    open(&browser, &sidecar).await;
    browser.click("#pull").await;
    ask(&browser, "Are you there?", 0).await;
    let kept = seen(&browser, "keeps it", |seen| seen.unanswered == 1).await;
    assert_eq!((kept.only_run().state.as_str(), agent.count()), ("waiting", 0));
    browser.click("#reload").await;
    let mut answer = agent.asked().await;
    answer.sse().await;
    say(&mut answer, 0..3).await;
    answer.end().await;
    let end = seen(&browser, "has the answer", |seen| seen.all("completed")).await;
    end.assert_exact();
    assert_eq!((end.only_run().text.as_str(), end.unanswered), (words(0..3).as_str(), 0));
    // Sent, and cut off before the answer could come: sent again with its key, it is the same question.
    let message = "document.getElementById('message')";
    let send_and_pull = format!(
        "{message}.value = 'And again'; document.getElementById('form').requestSubmit(); document.getElementById('pull').click()"
    );
    browser.script(&send_and_pull).await;
    let mut answer = agent.asked().await;
    answer.sse().await;
    seen(&browser, "has heard nothing", |seen| seen.unanswered == 1 && seen.state == "pulled").await;
    browser.click("#pull").await;
    seen(&browser, "knows its run", |seen| seen.unanswered == 0).await;
    answer.end().await;
    let end = seen(&browser, "has both answers", |seen| states(seen) == ["completed"; 2]).await;
    end.assert_exact();
    assert_eq!(agent.count(), 2);
}

#[tokio::test]
async fn four_agents_are_shown_side_by_side_below_the_one_that_has_asked_them() {
    let Some(browser) = Browser::start().await else { return };
    let agent = Agent::recordings().await;
    let sidecar = sidecar_with_page(agent.url()).start().await;
    open(&browser, &sidecar).await;
    browser.script("document.getElementById('dialect').value = 'team'").await;
    ask(&browser, "All of you", 25).await;
    let four = |seen: &Seen| seen.runs.len() == 4 && seen.runs.iter().all(|run| !run.text.is_empty());
    let live = seen(&browser, "shows all four", four).await;
    let root = live.runs.iter().find(|run| run.source.as_deref() == Some("orchestrator")).unwrap();
    let mut children: Vec<_> = live.runs.iter().filter(|run| run.parent == root.run).collect();
    children.sort_by_key(|run| run.source.clone());
    let sources: Vec<_> = children.iter().map(|run| run.source.as_deref().unwrap()).collect();
    assert_eq!(sources, ["critic", "researcher", "writer"]);
    let together = "return [...document.querySelectorAll('.turn > .lanes > .lane')].map(lane => lane.querySelector('.source').textContent).sort()";
    let lanes = serde_json::json!(["critic", "researcher", "writer"]);
    until("three lanes", async || (browser.script(together).await == lanes).then_some(())).await;
    let end = seen(&browser, "has all answers", |seen| seen.all("completed")).await;
    end.assert_exact();
    assert_eq!((end.replayed, agent.received("POST /api/chat").await), (0, 4));
    assert_eq!(browser.complaints().await, [""; 0]);
}
