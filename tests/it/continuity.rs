//! A session across devices and instances: who is here, how far its user has read, what devices say
//! to each other, and how a new device finds it.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Ask, Message, Sidecar, Stage, Store, WebSocket, terminal_of, until};

/// How long a client is here whose instance died without a word: the documented lease.
const LEASE: Duration = Duration::from_secs(15);

/// Connects as `client`, with what says whose device it is.
async fn device(sidecar: &Sidecar, client: &str, headers: &[(&str, &str)]) -> WebSocket {
    let path = format!("/_sidestream/v1/ws?client={client}");
    let mut device = WebSocket::open(&sidecar.url(), &path, headers).await.unwrap();
    device.expect("welcome").await;
    device
}

/// Is here, with a state; the answer.
async fn be_here(device: &mut WebSocket, state: Value) -> Message {
    device.ask(json!({"type": "presence", "session": "s", "state": state})).await
}

/// The next message of this type that is no answer.
async fn told(device: &mut WebSocket, kind: &str) -> Message {
    device.collect_until(|message| message.kind() == kind).await.pop().unwrap()
}

async fn publish(device: &mut WebSocket, data: Value, ephemeral: bool) -> Message {
    let message = json!({"type": "publish", "session": "s", "event": "note", "data": data, "ephemeral": ephemeral});
    let ack = device.ask(message).await;
    assert_eq!(ack.kind(), "ack", "{ack}");
    ack
}

/// Known failure 8, across instances: only the first tab gets live events.
#[tokio::test]
async fn two_devices_at_two_instances_see_the_identical_sequence() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let (mut one, mut two) = (device(&stage.sidecar, "one", &[]).await, device(&other, "two", &[]).await);
    one.attach("s").await;
    two.attach("s").await;
    let mut runs = vec![stage.run_in("s").await, stage.run_in("s").await];
    for n in 0..60 {
        runs[n % 2].upstream.event(n).await;
        if n % 20 == 0 {
            publish(&mut one, json!({"by": "one", "n": n}), false).await;
            publish(&mut two, json!({"by": "two", "n": n}), false).await;
            publish(&mut two, json!("passing"), true).await;
        }
    }
    let ids: Vec<_> = runs.iter().map(|run| run.id.clone()).collect();
    for run in runs {
        run.upstream.end().await;
    }
    let mut both = Vec::new();
    for device in [&mut one, &mut two] {
        let mut ended = 0;
        let mut all = device
            .collect_until(|message| {
                ended += usize::from(message.is_terminal());
                ended == 2
            })
            .await;
        all.retain(Message::is_entry);
        for id in &ids {
            assert_eq!(terminal_of(&all, id)["state"], "completed");
        }
        both.push(all);
    }
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].iter().filter(|entry| entry["event"] == "note" && entry["run"].is_null()).count(), 6);
    // Whoever comes later reads the same.
    let replayed = other.entries("s").await;
    assert_eq!(
        replayed.iter().map(Message::entry).collect::<Vec<_>>(),
        both[0].iter().map(Message::entry).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn who_is_here_is_told_at_every_instance() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let _run = stage.run_in("s").await;
    let (mut one, mut two) = (device(&stage.sidecar, "one", &[]).await, device(&other, "two", &[]).await);
    assert_eq!(one.attach("s").await["present"], json!([]));
    // Who only reads is not listed.
    assert_eq!(two.attach("s").await["present"], json!([]));
    assert_eq!(be_here(&mut two, json!({"typing": false})).await.kind(), "ack");
    let joined = told(&mut one, "presence").await;
    assert_eq!((&joined["event"], &joined["client"]), (&json!("join"), &json!("two")), "{joined}");
    assert_eq!(joined["state"], json!({"typing": false}));
    // A client hears of itself, too.
    assert_eq!(told(&mut two, "presence").await.entry(), joined.entry());

    be_here(&mut two, json!({"typing": true})).await;
    let changed = told(&mut one, "presence").await;
    assert_eq!((&changed["event"], &changed["connection"]), (&json!("state"), &joined["connection"]));
    assert_eq!(changed["state"], json!({"typing": true}));
    let mut late = device(&stage.sidecar, "late", &[]).await;
    let present = json!([{"connection": joined["connection"], "client": "two", "state": {"typing": true}}]);
    assert_eq!(late.attach("s").await["present"], present);

    be_here(&mut two, Value::Null).await;
    let left = told(&mut one, "presence").await;
    assert_eq!((&left["event"], &left["client"], &left["state"]), (&json!("leave"), &json!("two"), &Value::Null));
    // A closed socket has left at once.
    be_here(&mut two, json!(1)).await;
    assert_eq!(told(&mut one, "presence").await["event"], "join");
    let closed = Instant::now();
    drop(two);
    assert_eq!(told(&mut one, "presence").await["event"], "leave");
    assert!(closed.elapsed() < LEASE / 2, "it took {:?}", closed.elapsed());
    // So has one that is detached.
    be_here(&mut late, json!(1)).await;
    assert_eq!(told(&mut one, "presence").await["event"], "join");
    assert_eq!(late.ask(json!({"type": "detach", "session": "s"})).await.kind(), "ack");
    assert_eq!(told(&mut one, "presence").await["event"], "leave");
}

#[tokio::test]
async fn the_clients_of_an_instance_that_was_killed_leave_within_the_lease_and_others_stay() {
    let mut stage = Stage::on(Store::Redis).await;
    let mut other = stage.another_sidecar().await;
    let _run = stage.run_in("s").await;
    let (mut one, mut two) = (device(&stage.sidecar, "one", &[]).await, device(&other, "two", &[]).await);
    one.attach("s").await;
    two.attach("s").await;
    be_here(&mut one, json!("stays")).await;
    be_here(&mut two, json!("dies")).await;
    for client in ["one", "two"] {
        assert_eq!(told(&mut one, "presence").await["client"], client);
    }
    other.process().kill();
    let killed = Instant::now();
    let left = told(&mut one, "presence").await;
    assert_eq!((&left["event"], &left["client"]), (&json!("leave"), &json!("two")), "{left}");
    assert!(killed.elapsed() < LEASE + Duration::from_secs(3), "it took {:?}", killed.elapsed());
    // The other one was here for longer than a lease by now, in every place that asks.
    tokio::time::sleep((LEASE + Duration::from_secs(2)).saturating_sub(killed.elapsed())).await;
    let third = stage.another_sidecar().await;
    let present = device(&third, "three", &[]).await.attach("s").await["present"].clone();
    assert_eq!((present.as_array().unwrap().len(), &present[0]["client"]), (1, &json!("one")), "{present}");
}

#[tokio::test]
async fn who_came_while_pushes_were_lost_is_told_when_they_are_back() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let _run = stage.run_in("s").await;
    let (mut one, mut two) = (device(&stage.sidecar, "one", &[]).await, device(&other, "two", &[]).await);
    one.attach("s").await;
    two.attach("s").await;
    let mut redis = stage.store.redis().client().await;
    for state in 0..5 {
        let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").to_owned();
        kill.exec_async(&mut redis).await.unwrap();
        be_here(&mut two, json!(state)).await;
        assert_eq!(told(&mut one, "presence").await["state"], state);
    }
}

#[rstest]
#[tokio::test]
async fn what_is_said_in_passing_reaches_who_is_here_and_nobody_later(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let run = stage.run_in("s").await;
    let (mut one, mut two) = (device(&stage.sidecar, "one", &[]).await, device(&stage.sidecar, "two", &[]).await);
    one.attach("s").await;
    two.attach_after("s", "end").await;
    let before = stage.sidecar.entries("s").await;
    let ack = publish(&mut one, json!({"x": [1]}), true).await;
    assert!(ack["offset"].is_null(), "{ack}");
    for device in [&mut one, &mut two] {
        let said = device.collect_until(Message::is_ephemeral).await.pop().unwrap();
        assert_eq!(
            (&said["source"], &said["event"], said.data()),
            (&json!("one"), &json!("note"), r#"{"x":[1]}"#.into())
        );
        assert!(said["run"].is_null() && said["offset"].is_null(), "{said}");
    }
    assert_eq!(stage.sidecar.entries("s").await, before);
    let mut late = device(&stage.sidecar, "late", &[]).await;
    late.attach("s").await;
    let replayed = late.collect_until(|message| message.kind() == "live").await;
    assert!(!replayed.iter().any(Message::is_ephemeral));
    run.upstream.end().await;
}

#[rstest]
#[tokio::test]
async fn what_is_published_is_an_entry_for_good_and_makes_the_session(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let stage = Stage::on(store).await;
    let mut one = device(&stage.sidecar, "one", &[]).await;
    let mut offsets = Vec::new();
    for n in 0..20 {
        offsets.push(publish(&mut one, json!({"n": n}), false).await.offset());
    }
    let mut two = device(&stage.sidecar, "two", &[]).await;
    two.attach("s").await;
    let entries = two.collect_until_live().await;
    assert_eq!(entries.iter().map(Message::offset).collect::<Vec<_>>(), offsets);
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!((entry.kind(), &entry["run"], &entry["source"]), ("event", &Value::Null, &json!("one")), "{entry}");
        assert_eq!((&entry["event"], &entry["json"]), (&json!("note"), &json!({"n": n})));
    }
    publish(&mut one, json!("live"), false).await;
    assert_eq!(two.entry().await["json"], "live");
}

#[rstest]
#[tokio::test]
async fn a_read_cursor_is_known_to_all_devices_of_its_user_and_to_nobody_else(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event(1).await;
    run.upstream.end().await;
    until("the run's end", async || (stage.sidecar.entries("s").await.len() == 3).then_some(())).await;
    let entries = stage.sidecar.entries("s").await;
    let (second, last) = (entries[1].offset().to_string(), entries[2].offset().to_string());
    let alice = [("authorization", "Bearer alice")];
    let mut phone = device(&stage.sidecar, "phone", &alice).await;
    let mut laptop = device(&stage.sidecar, "laptop", &alice).await;
    let mut bob = device(&stage.sidecar, "phone", &[]).await;
    for device in [&mut phone, &mut laptop, &mut bob] {
        assert!(device.attach("s").await["read"].is_null());
    }
    let read = |offset: &str| json!({"type": "read", "session": "s", "offset": offset});
    assert_eq!(phone.ask(read(&last)).await["offset"], last);
    let moved = told(&mut laptop, "read").await;
    assert_eq!((&moved["offset"], &moved["client"]), (&json!(last), &json!("phone")), "{moved}");
    // It does not go back, and the answer says where it is.
    assert_eq!(laptop.ask(read(&second)).await["offset"], last);
    assert_eq!(bob.ask(read(&second)).await["offset"], second);
    assert_eq!(told(&mut bob, "read").await["offset"], second, "nobody else's came first");
    assert_eq!(device(&stage.sidecar, "tablet", &alice).await.attach("s").await["read"], last);
    assert_eq!(device(&stage.sidecar, "phone", &[]).await.attach("s").await["read"], second);
    assert!(device(&stage.sidecar, "other", &[]).await.attach("s").await["read"].is_null());

    let ahead = last.split('-').next().unwrap().to_owned() + "-99";
    let refused = phone.ask(read(&ahead)).await;
    assert_eq!((refused.kind(), &refused["code"]), ("error", &json!("bad_offset")), "{refused}");
    let refused = phone.ask(json!({"type": "read", "session": "unknown", "offset": last})).await;
    assert_eq!(refused["code"], "not_found", "{refused}");
    let refused = stage.sidecar.connect().await.ask(read(&last)).await;
    assert_eq!(refused["code"], "forbidden", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("?client="), "{refused}");
}

/// Known failure 33: a second device cannot find the session, because its run id lived in one browser's
/// storage.
#[rstest]
#[tokio::test]
async fn a_second_device_cannot_find_the_session(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let ask = stage.sidecar.post("/chat").header("authorization", "Bearer alice");
    let mut first = stage.answered(ask).await;
    let ask = stage.sidecar.post("/chat").header("authorization", "Bearer bob");
    let bobs = stage.answered(ask).await;
    let nobodys = stage.run().await;
    let alice = [("authorization", "Bearer alice")];
    let mut phone = device(&stage.sidecar, "phone", &alice).await;
    publish(&mut phone, json!(1), false).await;

    let mine = |query: &str, token: &str| {
        let path = format!("/_sidestream/v1/sessions?subject=me{query}");
        stage.sidecar.get(path).header("authorization", format!("Bearer {token}"))
    };
    let names = |page: &Value| -> Vec<String> {
        let sessions = page["sessions"].as_array().unwrap();
        sessions.iter().map(|row| row["session"].as_str().unwrap().to_owned()).collect()
    };
    let page = mine("", "alice").send().await.json().await;
    assert_eq!(names(&page), ["s".to_owned(), first.session.clone()]);
    assert_eq!((&page["sessions"][1]["active_runs"], &page["next"]), (&json!(1), &Value::Null), "{page}");
    assert_eq!(names(&mine("", "bob").send().await.json().await), [bobs.session.as_str()]);
    assert_eq!(names(&mine("", "carol").send().await.json().await), [""; 0]);
    // Page by page.
    let newest = mine("&limit=1", "alice").send().await.json().await;
    let next = newest["next"].as_str().unwrap();
    let rest = mine(&format!("&limit=1&before={next}"), "alice").send().await.json().await;
    assert_eq!((names(&newest), names(&rest)), (vec!["s".to_owned()], vec![first.session.clone()]));

    // The new device has all of it, live.
    let mut laptop = device(&stage.sidecar, "laptop", &alice).await;
    laptop.attach(&first.session).await;
    first.upstream.event("hello").await;
    while laptop.entry().await["text"] != "hello" {}

    let anonymous = stage.sidecar.get("/_sidestream/v1/sessions?subject=me").send().await;
    assert_eq!(anonymous.status, 403);
    let problem = anonymous.json().await;
    assert_eq!(problem["code"], "forbidden");
    assert!(problem["detail"].as_str().unwrap().contains("header:authorization"), "{problem}");
    let others = stage.sidecar.get("/_sidestream/v1/sessions?subject=abc").send().await;
    assert_eq!(others.status, 403);
    // An operator lists anybody's, by the documented digest.
    let listed =
        stage.sidecar.admin(&format!("/sessions?subject={}", digest("header:authorization", "Bearer bob"))).await;
    assert_eq!(names(&listed.json().await), [bobs.session.as_str()]);
    // What is erased is not found any more.
    let erased =
        Ask::new(http::Method::DELETE, &stage.sidecar.url(), format!("/_sidestream/v1/sessions/{}", first.session))
            .send()
            .await;
    assert_eq!(erased.status, 204);
    assert_eq!(names(&mine("", "alice").send().await.json().await), ["s"]);
    drop((first, bobs, nobodys));
}

/// The digest of a principal, as `docs/store-layout.md` has it.
fn digest(rule: &str, value: &str) -> String {
    let mut digest = Sha256::new();
    for part in ["sidestream subject 1", rule, value] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_state_over_1_kib_is_refused_and_nothing_of_it_is_there() {
    let mut stage = Stage::on(Store::Embedded).await;
    let _run = stage.run_in("s").await;
    let mut one = device(&stage.sidecar, "one", &[]).await;
    let before = be_here(&mut one, json!(1)).await;
    assert_eq!((before.kind(), &before["code"]), ("error", &json!("not_found")), "it is not attached: {before}");
    one.attach("s").await;
    assert_eq!(be_here(&mut one, json!("x".repeat(1022))).await.kind(), "ack");
    let refused = be_here(&mut one, json!("x".repeat(1023))).await;
    assert_eq!(
        (refused.kind(), &refused["code"], &refused["retryable"]),
        ("error", &json!("too_large"), &json!(false))
    );
    assert!(refused["message"].as_str().unwrap().contains("1024"), "{refused}");
    let mut two = device(&stage.sidecar, "two", &[]).await;
    assert_eq!(two.attach("s").await["present"][0]["state"], "x".repeat(1022));
}

#[tokio::test]
async fn an_attach_tells_what_the_active_runs_are_doing() {
    let route = "[[route]]\nmatch = \"POST /chat\"\nstall = \"200ms\"\nstall_limit = \"1h\"\n";
    let mut stage = Stage::with(Store::Redis, route).await;
    let other = stage.another_sidecar().await;
    let ask = stage.sidecar.post("/chat").header("sidestream-session", "s").header("sidestream-source", "planner");
    let mut run = stage.answered(ask).await;
    run.upstream.event(1).await;
    let mut early = stage.sidecar.connect().await;
    early.attach("s").await;
    early.collect_until(|message| message["state"] == "stalled").await;
    // Followed anew, and followed all the time.
    for sidecar in [&other, &stage.sidecar] {
        let runs = sidecar.connect().await.attach("s").await["runs"].clone();
        assert_eq!((&runs[0]["run"], &runs[0]["state"]), (&json!(run.id), &json!("stalled")), "{runs}");
        assert_eq!(runs[0]["source"], "planner");
    }
    run.upstream.event(2).await;
    early.collect_until(|message| message["json"] == 2).await;
    let runs = stage.sidecar.connect().await.attach("s").await["runs"].clone();
    assert_eq!(runs[0]["state"], "active", "{runs}");
}

/// Nobody makes a session of that form by naming it, and a publication is no exception.
#[tokio::test]
async fn an_id_that_rules_derive_is_not_made_by_a_publication() {
    let stage = Stage::on(Store::Embedded).await;
    let mut phone = device(&stage.sidecar, "phone", &[]).await;
    let refused = phone.ask(json!({"type": "publish", "session": "~made-up", "data": 1})).await;
    assert_eq!((refused.kind(), &refused["code"]), ("error", &json!("not_found")), "{refused}");
    let answer = stage.sidecar.get("/_sidestream/v1/sessions/~made-up").send().await;
    assert_eq!(answer.problem().await, (404, "not_found".into()));
}
