//! What pages of other origins may do, and the paths that an ingress lets through.

use http::Method;
use serde_json::json;

use crate::support::{Answer, Ask, Run, Stage, Store, WebSocket};

const APP: &str = "https://app.example.com";

/// The value of a CORS header, if it is there.
fn cors(answer: &Answer, name: &str) -> Option<String> {
    let value = answer.headers.get(format!("access-control-{name}"))?;
    Some(value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_page_of_a_configured_origin_may_use_our_routes_and_no_other_may() {
    let config = format!("[server]\ncors_origins = [\"{APP}\"]");
    let mut stage = Stage::with(Store::Embedded, &config).await;
    let run = stage.run_in("s").await;
    let path = "/_sidestream/v1/sessions/s";
    let url = stage.sidecar.url();
    let preflight = |origin| {
        let ask = Ask::new(Method::OPTIONS, &url, path).header("origin", origin);
        ask.header("access-control-request-method", "DELETE").send()
    };
    let asked = preflight(APP).await;
    assert_eq!((asked.status.as_u16(), cors(&asked, "allow-origin").as_deref()), (204, Some(APP)));
    assert!(cors(&asked, "allow-methods").unwrap().contains("DELETE"));
    assert!(cors(&asked, "allow-headers").unwrap().contains("Last-Event-ID"));
    assert_eq!(cors(&preflight("https://evil.example").await, "allow-origin"), None);

    let answer = stage.sidecar.get(path).header("origin", APP).send().await;
    assert_eq!(cors(&answer, "allow-origin").as_deref(), Some(APP));
    assert_eq!(cors(&answer, "allow-credentials").as_deref(), Some("true"));
    assert_eq!(answer.header("vary"), "Origin");
    let answer = stage.sidecar.get(path).header("origin", "https://evil.example").send().await;
    assert_eq!(cors(&answer, "allow-origin"), None);
    let missing = stage.sidecar.get(format!("{path}/runs/nobody/stream")).header("origin", APP).send().await;
    assert_eq!(cors(&missing, "allow-origin").as_deref(), Some(APP), "a page can read the error, too");
    assert_eq!(stage.agent.count(), 1, "nothing of it was the upstream's");
    drop(run);
}

#[tokio::test]
async fn a_star_lets_any_origin_in_without_credentials() {
    let stage = Stage::with(Store::Embedded, "[server]\ncors_origins = [\"*\"]").await;
    let answer = stage.sidecar.get("/_sidestream/v1/sessions/s").header("origin", APP).send().await;
    assert_eq!(cors(&answer, "allow-origin").as_deref(), Some("*"));
    assert_eq!(cors(&answer, "allow-credentials"), None);
    assert!(WebSocket::open(&stage.sidecar.url(), "/chat", &[("origin", APP)]).await.is_ok());
}

#[tokio::test]
async fn our_headers_are_exposed_where_the_upstream_lets_the_page_read_its_answer() {
    let mut stage = Stage::on(Store::Embedded).await;
    for (theirs, expected) in [
        ("access-control-allow-origin: *\r\naccess-control-expose-headers: x-theirs\r\n", true),
        ("x-other: 1\r\n", false),
    ] {
        let upstream = async {
            let mut upstream = stage.agent.asked().await;
            upstream.sse_with(theirs).await;
            upstream
        };
        let (caller, upstream) = tokio::join!(stage.sidecar.post("/chat").send(), upstream);
        let run = Run::new(caller, upstream);
        let exposed = run.caller.headers.get_all("access-control-expose-headers");
        let exposed: Vec<&str> = exposed.iter().map(|value| value.to_str().unwrap()).collect();
        let exposed = exposed.join(", ");
        assert_eq!(exposed.contains("x-theirs") && exposed.contains("Sidestream-Session"), expected, "{exposed}");
        assert_eq!(exposed.is_empty(), !expected);
    }
}

#[tokio::test]
async fn our_routes_stand_below_the_prefix_that_an_ingress_routes() {
    let mut stage = Stage::with(Store::Embedded, "[server]\nprefix = \"/api/_live\"").await;
    let run = stage.run_in("s").await;
    let described = stage.sidecar.get("/api/_live/v1/sessions/s").send().await.json().await;
    assert_eq!(described["runs"][0]["run"], run.id);
    let mut device = stage.sidecar.connect_to("/api/_live/v1/ws").await;
    device.attach("s").await;
    for path in ["/_sidestream/v1/sessions/s", "/api/_livexyz", "/api"] {
        let upstream = async { stage.agent.asked().await.json("{\"theirs\":1}").await };
        let (answer, ()) = tokio::join!(stage.sidecar.get(path).send(), upstream);
        assert_eq!(answer.json().await, json!({"theirs": 1}), "{path} is the upstream's");
    }
}
