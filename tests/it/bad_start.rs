//! What keeps the sidecar from starting, or from keeping anything: said clearly, with what to do.

use serde_json::json;

use crate::support::{
    Ask, End, RedisServer, RedisServerOptions, ScriptedAgent, Sidecar, Stage, Store, free_port, until,
};

#[tokio::test]
async fn with_redis_away_at_the_start_plain_traffic_flows_and_it_becomes_ready_when_redis_appears() {
    let port = free_port();
    let mut agent = ScriptedAgent::start().await;
    let sidecar = Sidecar::of(agent.url()).store(format!("redis://127.0.0.1:{port}")).start_unready().await;
    let ready = sidecar.health("/readyz").await;
    assert_eq!(ready.status, 503);
    let ready = ready.json().await;
    assert_eq!((&ready["ready"], &ready["store"]), (&json!(false), &json!("down")));
    assert!(ready["store_reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{ready}");

    let answer = |agent: ScriptedAgent| async {
        let mut agent = agent;
        let mut upstream = agent.asked().await;
        upstream.sse().await;
        upstream.event("1").await;
        upstream.end().await;
        agent
    };
    let (caller, back) = tokio::join!(sidecar.post("/chat").send(), answer(agent));
    agent = back;
    assert_eq!(caller.header("sidestream-durable"), "no");
    assert_eq!(caller.whole().await, ("data: 1\n\n".into(), End::Clean));
    let own = sidecar.get("/_sidestream/v1/sessions/s").send().await;
    assert_eq!(own.problem().await, (503, "store_unavailable".into()));
    assert!(sidecar.log().contains(&port.to_string()), "the log names the store: {}", sidecar.log());

    let mut device = sidecar.connect().await;
    let status = device.expect("status").await;
    assert_eq!((&status["code"], &status["retryable"]), (&json!("store_unavailable"), &json!(true)));

    let _redis = RedisServerOptions::default().start_on(port);
    until("readiness", async || (sidecar.health("/readyz").await.status == 200).then_some(())).await;
    assert_eq!(device.expect("status").await["code"], "ok");
    let (caller, _agent) = tokio::join!(sidecar.post("/chat").send(), answer(agent));
    let session = caller.header("sidestream-session").to_owned();
    caller.whole().await;
    assert_eq!(sidecar.entries(&session).await.len(), 3);
}

#[tokio::test]
async fn while_redis_is_away_clients_are_told_and_stay_connected() {
    let mut stage = Stage::on(Store::Redis).await;
    let mut device = stage.sidecar.connect().await;
    stage.store.redis().kill();
    let status = device.collect_until(|message| message.kind() == "status").await.pop().unwrap();
    assert_eq!((&status["code"], &status["retryable"]), (&json!("store_unavailable"), &json!(true)));
    // It stays in service: its neighbours have the same store, and plain streams still flow.
    let ready = stage.sidecar.health("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json().await["store"], "down");
    stage.store.redis().restart();
    let status = device.collect_until(|message| message.kind() == "status").await.pop().unwrap();
    assert_eq!(status["code"], "ok");
    let says_so = async || stage.sidecar.log().contains("the store answers again").then_some(());
    until("the log to say that it is back", says_so).await;
    let log = stage.sidecar.log();
    for once in ["the store does not answer", "the store answers again"] {
        assert_eq!(log.matches(once).count(), 1, "{once}: {log}");
    }
    assert!(log.matches("lost the pub/sub").count() <= 1 && !log.contains("ERROR"), "a short outage: {log}");
    let run = stage.run_in("s").await;
    device.attach("s").await;
    assert_eq!(device.entry().await["run"], run.id);
}

#[tokio::test]
async fn a_redis_that_refuses_the_password_is_said_without_repeating_it() {
    let redis = RedisServerOptions::default().directive("requirepass s3cret").start();
    let agent = ScriptedAgent::start().await;
    let url = redis.url_as(":wrong-p4ss");
    let refused = Sidecar::of(agent.url()).store(url).does_not_start().await;
    assert_eq!(refused.code, 4, "{}", refused.output);
    assert!(refused.output.contains("password") || refused.output.contains("WRONGPASS"), "{}", refused.output);
    assert!(!refused.output.contains("p4ss"), "{}", refused.output);
    let sidecar = Sidecar::of(agent.url()).store(redis.url_as(":s3cret")).start().await;
    assert!(!sidecar.log().contains("s3cret"), "{}", sidecar.log());
}

#[tokio::test]
async fn a_redis_that_is_something_else_is_said_with_what_to_write() {
    let (plain, encrypted) = (RedisServer::start(), RedisServerOptions::default().tls().start());
    let (stranger, member) =
        (RedisServerOptions::default().tls().start(), RedisServerOptions::default().cluster().start());
    let web = Sidecar::of("http://127.0.0.1:9").store("memory:").start().await;
    let at = |scheme: &str, server: &RedisServer, rest: &str| format!("{scheme}://127.0.0.1:{}{rest}", server.port());
    let ca = format!("ca_file = \"{}\"", stranger.ca_file().display());
    for (url, store, says) in [
        (at("redis", &plain, "/99"), "", "has no database 99"),
        (at("rediss", &plain, ""), "", "write redis://"),
        (at("redis", &encrypted, ""), "", "write rediss://"),
        (at("rediss", &encrypted, ""), "", "store.ca_file"),
        (at("rediss", &encrypted, ""), &*ca, "store.ca_file"),
        (at("redis-cluster", &plain, ""), "", "write redis://"),
        (at("redis", &member, ""), "", "write redis-cluster://"),
        (at("redis-sentinel", &plain, "?master=m"), "", "26379"),
        (web.url().replace("http://", "redis://"), "", "does not speak Redis"),
        (at("redis", &plain, ""), "ack = \"replicated\"", "store.ack"),
        (at("redis", &plain, "").replace("//", "//user:s3cret@"), "", "the credentials of user"),
    ] {
        let sidecar = Sidecar::of("http://127.0.0.1:9").store(&*url).config(&format!("[store]\n{store}"));
        let refused = sidecar.does_not_start().await;
        assert_eq!(refused.code, 4, "{url} {store}: {}", refused.output);
        assert!(refused.output.contains(says), "{url} {store}: {}", refused.output);
        assert!(!refused.output.contains("s3cret"), "{}", refused.output);
    }
}

#[tokio::test]
async fn a_redis_that_may_drop_sessions_is_warned_about_in_the_log_and_where_the_platform_looks() {
    let redis = RedisServerOptions::default().directive("maxmemory-policy allkeys-lru").start();
    let sidecar = Sidecar::of("http://127.0.0.1:9").store(redis.url()).start().await;
    let ready = sidecar.health("/readyz").await.json().await;
    assert_eq!(ready["ready"], true, "a warning is no outage: {ready}");
    let warnings = ready["store_warnings"].to_string();
    for setting in ["maxmemory-policy", "allkeys-lru", "noeviction", "appendonly"] {
        assert!(warnings.contains(setting) && sidecar.log().contains(setting), "{setting}: {ready}");
    }
}

#[tokio::test]
async fn a_redis_that_is_full_is_said_in_the_log_and_where_the_platform_looks_for_as_long_as_it_is() {
    let mut stage = Stage::on(Store::Redis).await;
    let mut redis = stage.store.redis().client().await;
    let mut run = stage.run_in("s").await;
    for (limit, full) in [("1", true), ("0", false)] {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxmemory").arg(limit).exec_async(&mut redis).await.unwrap();
        if full {
            run.upstream.event(1).await;
        }
        until("the warning", async || {
            let ready = stage.sidecar.health("/readyz").await.json().await;
            assert_eq!(ready["store"], "up", "it answers: {ready}");
            (ready["store_warnings"].to_string().contains("raise maxmemory") == full).then_some(())
        })
        .await;
    }
    until("the end of it", async || stage.sidecar.log().contains("takes what is written again").then_some(())).await;
    assert_eq!(stage.sidecar.log().matches("raise maxmemory").count(), 1, "{}", stage.sidecar.log());
}

#[tokio::test]
async fn the_password_of_a_redis_comes_from_a_file() {
    let redis = RedisServerOptions::default()
        .directive("user side on >s3cret ~ss:* resetchannels &ss:* +@all -@dangerous +info")
        .start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let place = format!("[store]\npassword = \"file:{}\"", file.path().display());
    let sidecar = Sidecar::of("http://127.0.0.1:9").store(redis.url_as("side")).config(&place).start().await;
    assert!(!sidecar.log().contains("s3cret"), "{}", sidecar.log());
}

#[tokio::test]
async fn an_embedded_store_that_is_in_use_names_who_holds_it() {
    let mut stage = Stage::on(Store::Embedded).await;
    let second = Sidecar::of(stage.agent.url()).store(stage.store.url()).does_not_start().await;
    assert_eq!(second.code, 4, "{}", second.output);
    let holder = stage.sidecar.process().id().to_string();
    assert!(second.output.contains(&holder), "it names the process {holder}: {}", second.output);
    assert!(second.output.contains("--store"), "it says what to do: {}", second.output);
    assert_eq!(stage.sidecar.health("/readyz").await.status, 200, "the first one is not disturbed");
}

#[tokio::test]
async fn an_embedded_store_that_cannot_be_written_says_so_and_names_the_option() {
    let agent = ScriptedAgent::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    // A file stands where the folder should be: unwritable for any user.
    for place in [file.path().to_owned(), file.path().join("below"), "/proc/sidestream".into()] {
        let refused = Sidecar::of(agent.url()).store(format!("file:{}", place.display())).does_not_start().await;
        assert_eq!(refused.code, 4, "{}", refused.output);
        assert!(refused.output.contains("--store"), "{}", refused.output);
        assert!(refused.output.contains(place.to_str().unwrap()), "it names the place: {}", refused.output);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_with_the_option_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = Sidecar::of("http://127.0.0.1:9").port(port).does_not_start().await;
    assert_eq!(refused.code, 3, "{}", refused.output);
    assert!(refused.output.contains(&format!("127.0.0.1:{port}")), "{}", refused.output);
    assert!(refused.output.contains("--listen"), "{}", refused.output);
}

#[tokio::test]
async fn the_health_listener_answers_what_the_platform_asks() {
    let stage = Stage::on(Store::Embedded).await;
    assert_eq!(stage.sidecar.health("/livez").await.status, 200);
    let ready = stage.sidecar.health("/readyz").await.json().await;
    assert_eq!(ready["ready"], true, "{ready}");
    let metrics = stage.sidecar.health("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"), "{metrics:?}");
    assert_eq!(stage.sidecar.health("/nothing").await.problem().await.0, 404);
    assert_eq!(stage.sidecar.admin("/livez").await.problem().await.0, 404, "each listener has its own");
    // The data listener's other paths are the upstream's.
    let mut stage = stage;
    let upstream = async { stage.agent.asked().await.json("{\"theirs\":true}").await };
    let (answer, ()) = tokio::join!(Ask::get(&stage.sidecar.url(), "/readyz").send(), upstream);
    assert_eq!(answer.json().await["theirs"], true);
}

#[tokio::test]
async fn nothing_of_a_conversation_stands_in_the_log_lines() {
    let route = "[[route]]\nmatch = \"POST /chat\"\ninput = \"json:/message\"";
    let redis = RedisServer::start();
    let mut agent = ScriptedAgent::start().await;
    let config = format!("{route}\n[log]\nlevel = \"debug\"");
    let sidecar = Sidecar::of(agent.url()).store(redis.url()).config(&config).start().await;
    let ask = sidecar.post("/chat?token=in-the-query").header("authorization", "Bearer in-the-header");
    let ask = ask.body(r#"{"message":"in the question"}"#);
    let (caller, ()) = tokio::join!(ask.send(), async {
        let mut upstream = agent.asked().await;
        upstream.sse().await;
        upstream.event("in the answer").await;
        upstream.write("data: in the tail").await;
        upstream.end().await;
    });
    let session = caller.header("sidestream-session").to_owned();
    caller.whole().await;
    let mut device = sidecar.connect().await;
    device.attach(&session).await;
    device.collect_until(|message| message.is_terminal()).await;
    device.send("in the message").await;
    device.collect_until(|message| message.kind() == "error").await;
    let log = sidecar.log();
    assert!(log.contains(&session), "what happened is in the log: {log}");
    for secret in ["in-the-query", "in-the-header", "in the question", "in the answer", "in the tail", "in the message"]
    {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
