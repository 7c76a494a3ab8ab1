//! What clients make of the events of a dialect, each written after the accumulator of its own client.

use serde_json::{Map, Value, json};
use sidestream::dialect::Dialect;

/// The state of a client that has read `events` (names and data).
pub(crate) fn reduce<'e>(dialect: Option<&Dialect>, events: impl Iterator<Item = (Option<&'e str>, &'e str)>) -> Value {
    let mut state = json!({});
    for (name, data) in events {
        let Ok(json) = serde_json::from_str::<Value>(data) else {
            push(&mut state["not json"], json!([name, data]));
            continue;
        };
        match dialect.map_or("", |dialect| &dialect.name) {
            "openai-chat" => chat(&mut state, &json),
            "openai-responses" => responses(&mut state, &json),
            "anthropic-messages" => anthropic(&mut state, &json),
            "gemini" => gemini(&mut state, &json),
            "ai-sdk" => ai_sdk(&mut state, &json),
            "ag-ui" => ag_ui(&mut state, &json),
            "langgraph" => langgraph(&mut state, name.unwrap_or("message"), &json),
            _ => others(&mut state, dialect, name, data, &json),
        }
    }
    state
}

/// After `accumulate_delta` of the OpenAI SDK for Python: texts and lists grow, elements of lists are found by
/// their `index`, the last of anything else counts. A role (or a channel) that is said again is the same
/// one: where it is in every chunk the SDK itself makes `assistantassistant…` of it.
fn chat(state: &mut Value, chunk: &Value) {
    for choice in elements(&chunk["choices"]) {
        let known = &mut state["choices"][choice["index"].to_string()];
        for (key, value) in members(choice) {
            match key.as_str() {
                "delta" => accumulate(&mut known["message"], value),
                "logprobs" => accumulate(&mut known["logprobs"], value),
                _ if value.is_null() => {}
                _ => known[key] = value.clone(),
            }
        }
    }
    for (key, value) in members(chunk).filter(|(key, _)| *key != "choices" && *key != "obfuscation") {
        if !value.is_null() {
            state[key] = value.clone();
        }
    }
}

fn accumulate(known: &mut Value, delta: &Value) {
    for (key, value) in members(delta) {
        let known = &mut known[key];
        match (&mut *known, value) {
            (_, Value::Null) => {}
            (Value::Null, Value::Array(elements)) => {
                *known = json!([]);
                elements.iter().for_each(|element| indexed(known, element));
            }
            (Value::Null, value) => *known = value.clone(),
            (_, value) if matches!(key.as_str(), "index" | "type" | "role" | "channel") => *known = value.clone(),
            (Value::String(text), Value::String(more)) => text.push_str(more),
            (Value::Object(_), Value::Object(_)) => accumulate(known, value),
            (Value::Array(_), Value::Array(elements)) => elements.iter().for_each(|element| indexed(known, element)),
            (known, value) => *known = value.clone(),
        }
    }
}

fn indexed(list: &mut Value, element: &Value) {
    let list = list.as_array_mut().unwrap();
    let same = |known: &&mut Value| !element["index"].is_null() && known["index"] == element["index"];
    match list.iter_mut().find(same) {
        Some(known) => accumulate(known, element),
        None => list.push(element.clone()),
    }
}

/// After the response accumulator of the OpenAI SDK for Node: `output` by index, its contents by index.
fn responses(state: &mut Value, event: &Value) {
    let kind = event["type"].as_str().unwrap_or_default();
    if !event["response"].is_null() {
        state["response"] = event["response"].clone();
    }
    if !event["sequence_number"].is_null() {
        state["sequence_number"] = event["sequence_number"].clone();
    }
    let item = &mut state["output"][event["output_index"].to_string()];
    let index = ["content_index", "summary_index"].iter().find(|index| !event[**index].is_null());
    let part = index.map_or("item".into(), |index| format!("{index} {}", event[*index]));
    if let Some(of) = kind.strip_suffix(".delta") {
        append(&mut item[part][of], &event["delta"]);
        push(&mut item["logprobs"], event["logprobs"].clone());
        // An event without any says nothing.
        let logprobs = item["logprobs"].as_array_mut().unwrap();
        logprobs.retain(|one| !one.is_null() && *one != json!([]));
        item["id"] = event["item_id"].clone();
    } else {
        let mut event = event.clone();
        event.as_object_mut().unwrap().remove("sequence_number");
        push(&mut item["events"], event);
    }
}

/// After `MessageStream` of the Anthropic SDK.
fn anthropic(state: &mut Value, event: &Value) {
    let block = &mut state["content"][event["index"].to_string()];
    match event["type"].as_str().unwrap_or_default() {
        "content_block_start" => *block = event["content_block"].clone(),
        "content_block_delta" => match event["delta"]["type"].as_str().unwrap_or_default() {
            "text_delta" => append(&mut block["text"], &event["delta"]["text"]),
            "thinking_delta" => append(&mut block["thinking"], &event["delta"]["thinking"]),
            "input_json_delta" => append(&mut block["json"], &event["delta"]["partial_json"]),
            "signature_delta" => block["signature"] = event["delta"]["signature"].clone(),
            _ => push(&mut block["other"], event["delta"].clone()),
        },
        _ => push(&mut state["events"], event.clone()),
    }
}

/// Texts of the same kind grow, other parts are listed; the last of anything else counts.
fn gemini(state: &mut Value, chunk: &Value) {
    for (key, value) in members(chunk).filter(|(key, _)| *key != "candidates") {
        state[key] = value.clone();
    }
    for candidate in elements(&chunk["candidates"]) {
        let known = &mut state["candidates"][candidate["index"].to_string()];
        for (key, value) in members(candidate).filter(|(key, _)| *key != "content") {
            known[key] = value.clone();
        }
        known["role"] = candidate["content"]["role"].clone();
        for part in elements(&candidate["content"]["parts"]) {
            let last = known["parts"].as_array_mut().and_then(|parts| parts.last_mut());
            let plain = |part: &Value| part["text"].is_string() && part["thoughtSignature"].is_null();
            match last {
                Some(last) if plain(last) && plain(part) && last["thought"] == part["thought"] => {
                    append(&mut last["text"], &part["text"]);
                }
                _ => push(&mut known["parts"], part.clone()),
            }
        }
    }
}

/// After `processUIMessageStream` of the AI SDK.
fn ai_sdk(state: &mut Value, event: &Value) {
    let id = ["id", "toolCallId"].iter().find_map(|key| event[*key].as_str()).unwrap_or_default();
    match event["type"].as_str().unwrap_or_default() {
        "text-delta" | "reasoning-delta" => append(&mut state["parts"][id]["text"], &event["delta"]),
        "tool-input-delta" => append(&mut state["parts"][id]["input"], &event["inputTextDelta"]),
        data if data.starts_with("data-") && !id.is_empty() => state["data"][data][id] = event["data"].clone(),
        _ => push(&mut state["events"], event.clone()),
    }
}

/// After `defaultApplyEvents` of the AG-UI client.
fn ag_ui(state: &mut Value, event: &Value) {
    let id = ["messageId", "toolCallId"].iter().find_map(|key| event[*key].as_str()).unwrap_or_default();
    match event["type"].as_str().unwrap_or_default() {
        kind @ ("TEXT_MESSAGE_CONTENT" | "TOOL_CALL_ARGS" | "REASONING_MESSAGE_CONTENT") => {
            append(&mut state[kind][id], &event["delta"]);
        }
        _ => push(&mut state["events"], event.clone()),
    }
}

/// `messages/partial` holds the messages so far, `messages` a piece of one and its metadata; everything else is
/// listed.
fn langgraph(state: &mut Value, name: &str, data: &Value) {
    match name {
        "messages/partial" => {
            for message in elements(data) {
                state["messages"][message["id"].to_string()] = message.clone();
            }
        }
        "messages" if data[0]["content"].is_string() => {
            let known = &mut state["messages"][data[0]["id"].to_string()];
            append(&mut known["content"], &data[0]["content"]);
            for (key, value) in members(&data[0]).filter(|(key, _)| *key != "content") {
                known[key] = value.clone();
            }
            known["metadata"] = data[1].clone();
        }
        _ => push(&mut state["events"], json!([name, data])),
    }
}

/// The texts, as the dialect's description finds them in what is parsed, and all events without one.
fn others(state: &mut Value, dialect: Option<&Dialect>, name: Option<&str>, data: &str, json: &Value) {
    let texts = dialect.map(|dialect| dialect.texts(name, data)).unwrap_or_default();
    for text in &texts {
        append(&mut state[format!("{:?}", text.kind)], &json!(text.text));
    }
    if texts.is_empty() {
        push(&mut state["events"], json!([name, json]));
    }
}

fn append(known: &mut Value, text: &Value) {
    let text = text.as_str().unwrap_or_default();
    match known {
        Value::String(known) => known.push_str(text),
        known => *known = text.into(),
    }
}

fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(list) => list.push(value),
        list => *list = json!([value]),
    }
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE).iter()
}
