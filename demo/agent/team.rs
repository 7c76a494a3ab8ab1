//! An answer of four agents: an orchestrator that has three others work at the same time, and relays
//! nothing of what they say.
//!
//! It calls them at the address at which its own caller reached this backend, and hands on who it is
//! working for, as an agent behind Sidestream does. It must never call another machine: the address
//! is what a request says.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::answer::{Answer, Refusal, Step, paced};
use crate::pace::Pace;

/// The agents that are asked, and the recorded answer that each of them gives.
const COLLEAGUES: [(&str, &str); 3] = [
    ("researcher", "openai-responses__openai-web-search.sse"),
    ("writer", "anthropic-messages__text-url-prompt.sse"),
    ("critic", "openai-chat__openrouter-comments-reasoning.sse"),
];

/// Who is done, and after how many events.
type Done = (&'static str, anyhow::Result<usize>);

/// Where the caller found this backend.
const FORWARDED_HOST: &str = "x-forwarded-host";

/// The orchestrator's answer to `question`; `rate` is that of the others.
///
/// # Errors
/// The request does not say where this backend was found, or that is another machine.
pub(crate) fn team(headers: &HeaderMap, question: &str, rate: Option<f64>, pace: Pace) -> Result<Answer, Refusal> {
    let found_at = headers.get(FORWARDED_HOST).or(headers.get(HOST)).and_then(|host| host.to_str().ok()?.parse().ok());
    let found_at: Authority = found_at.ok_or_else(|| Refusal::bad_request("the request has no host"))?;
    let ip = found_at.host().trim_matches(['[', ']']).parse::<IpAddr>();
    if found_at.host() != "localhost" && !ip.is_ok_and(|ip| ip.is_loopback()) {
        return Err(Refusal::bad_request("the team works on one machine only: open the page at 127.0.0.1"));
    }
    // Dropped with the answer: whoever is still at work is left then.
    let mut asked = JoinSet::new();
    for (name, recording) in COLLEAGUES {
        let body = json!({"message": question, "recording": recording, "rate": rate});
        asked.spawn(ask(found_at.clone(), name, handed_on(headers), body.to_string()));
    }
    let asked = Arc::new(Mutex::new(asked));
    let reports = COLLEAGUES.map(|_| Step::When(report(asked.clone()).boxed()));
    let before = paced(said("I ask a researcher, a writer and a critic, all at once. "), pace.clone());
    let after = paced(said("That is what we found. ").chain([Bytes::from_static(b"data: [DONE]\n\n")]), pace);
    Ok(Answer::event_stream(before.chain(reports).chain(after)))
}

/// The session that the caller works in, and its run, for those that it calls.
fn handed_on(headers: &HeaderMap) -> Vec<(&'static str, HeaderValue)> {
    let named = [("sidestream-session", "sidestream-session"), ("sidestream-run", "sidestream-parent-run")];
    named.into_iter().filter_map(|(told, handed)| Some((handed, headers.get(told)?.clone()))).collect()
}

/// Has a colleague answer, and says how many events that took.
async fn ask(
    found_at: Authority,
    name: &'static str,
    handed_on: Vec<(&'static str, HeaderValue)>,
    body: String,
) -> Done {
    let answer = async {
        let mut request = Request::post(format!("http://{found_at}/api/chat"))
            .header(CONTENT_TYPE, "application/json")
            .header("sidestream-source", name);
        for (header, value) in handed_on {
            request = request.header(header, value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request.body(Full::from(body))?).await?;
        anyhow::ensure!(response.status().is_success(), "{}", response.status());
        let answer = response.into_body().collect().await?.to_bytes();
        Ok(answer.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"data:")).count())
    };
    (name, answer.await)
}

/// What the orchestrator says of the next one that is done.
async fn report(asked: Arc<Mutex<JoinSet<Done>>>) -> Bytes {
    let text = match asked.lock().await.join_next().await {
        Some(Ok((name, Ok(events)))) => format!("The {name} is done after {events} events. "),
        Some(Ok((name, Err(error)))) => format!("The {name} did not finish: {error}. "),
        Some(Err(_)) | None => "Somebody has left. ".to_owned(),
    };
    chunk(&text)
}

/// A sentence, word by word.
fn said(text: &'static str) -> impl Iterator<Item = Bytes> + Send {
    text.split_inclusive(' ').map(chunk)
}

/// As OpenAI's chat completions stream it.
fn chunk(text: &str) -> Bytes {
    let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": null});
    format!("data: {}\n\n", json!({"object": "chat.completion.chunk", "choices": [choice]})).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
        team(&headers, "", None, Pace::new(Some(0.0), 1)).is_err()
    }

    #[tokio::test]
    async fn a_request_cannot_send_the_team_to_another_machine() {
        for here in ["127.0.0.1:8787", "localhost", "[::1]:80"] {
            assert!(!refused(here), "{here}");
        }
        for elsewhere in ["198.51.100.7", "agents.example:80", "127.0.0.1.agents.example", "[2001:db8::1]:80", "a b"] {
            assert!(refused(elsewhere), "{elsewhere}");
        }
    }
}
