//! Synthetic streams of any length, in the shape of an OpenAI chat stream.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::answer::{Answer, Refusal, paced};
use crate::pace::Pace;
use crate::query::Query;

const TEXT: &str =
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore. ";

/// `events` events (100) of about `bytes` bytes each (200), then `[DONE]`. Each carries its number
/// `n` from 1, and with `stamp=1` the time `t_ns` at which it was written, nanoseconds since the
/// Unix epoch.
pub(crate) fn lorem(query: Query<'_>, pace: Pace) -> Result<Answer, Refusal> {
    let events = query.value("events")?.unwrap_or(100u64);
    let bytes = query.value("bytes")?.unwrap_or(200usize);
    if bytes > 64 << 20 {
        return Err(Refusal::bad_request("`bytes` is at most 67108864"));
    }
    let stamp = query.flag("stamp");
    let event = move |n: u64, content: &str| {
        // Built when it is due, so that the stamp is the time of the write.
        let time = if stamp { format!(r#""t_ns":{},"#, now_ns()) } else { String::new() };
        format!(
            "data: {{\"id\":\"chatcmpl-lorem\",\"object\":\"chat.completion.chunk\",\"n\":{n},{time}\
             \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":null}}]}}\n\n"
        )
    };
    let room = bytes.saturating_sub(event(events, "").len()).max(1);
    let content: String = TEXT.chars().cycle().take(room).collect();
    let event = move |n| Bytes::from(event(n, &content));
    let writes = (1..=events).map(event).chain([Bytes::from_static(b"data: [DONE]\n\n")]);
    Ok(Answer::event_stream(paced(writes, pace)))
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
