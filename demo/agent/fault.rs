//! Answers that go wrong, each in one way that real backends do.

use bytes::Bytes;

use crate::answer::{Answer, Refusal, Step};
use crate::query::Query;

const KINDS: &str = "reset-mid-event, truncate, close, error-event, silent, oversize, non-utf8, malformed";

/// The answer that goes wrong as `kind` says, after `events` good events (default: 3).
pub(crate) fn fault(kind: &str, query: Query<'_>) -> Result<Answer, Refusal> {
    let mut steps: Vec<Step> = (1..=query.value("events")?.unwrap_or(3u32).min(10_000)).map(good).collect();
    match kind {
        // The connection is reset in the middle of an event.
        "reset-mid-event" => steps.extend([half(), Step::Reset]),
        // The body lacks its last chunk: the application has died after a whole event.
        "truncate" => steps.push(Step::Truncate),
        // HTTP ends as it should, in the middle of an event.
        "close" => steps.push(half()),
        // The backend says that it has failed, then ends in good order.
        "error-event" => {
            steps.push(write("event: error\ndata: {\"error\":{\"message\":\"the model is overloaded\"}}\n\n"))
        }
        // Nothing comes any more, and nothing is closed.
        "silent" => {
            steps = vec![good(1), Step::Hang];
        }
        // One event of `bytes` bytes of data (default: 20 MiB) between two small ones.
        "oversize" => {
            let bytes = query.value("bytes")?.unwrap_or(20usize << 20);
            return Ok(Answer::event_stream(oversize(bytes)));
        }
        // Invalid UTF-8: a byte that never occurs, an overlong form, a surrogate, a cut character.
        "non-utf8" => steps.extend([
            write(b"data: {\"n\":\"\xff\"}\n\n".as_slice()),
            write(b"event: t\xc3\ndata: \xc0\xaf \xed\xa0\x80 \xf0\x9f\x8c\n\n".as_slice()),
            good(0),
        ]),
        // Not what a parser hopes for, and each with a meaning in the standard.
        "malformed" => steps.extend([
            write("{\n  \"error\": {\"code\": 503}\n}\n\n"),
            write("data\ndata:no space\nDATA: upper case\n unknown: field\n\n"),
            write(b"id: with\0nul\nretry: soon\nevent:\ndata: x\r\r: comment\n\n\n\r\n".as_slice()),
            good(0),
        ]),
        _ => return Err(Refusal::not_found(format!("no fault `{kind}`; there are: {KINDS}"))),
    }
    Ok(Answer::event_stream(steps.into_iter()))
}

fn write(bytes: impl Into<Bytes>) -> Step {
    Step::Write(bytes.into())
}

fn good(n: u32) -> Step {
    write(format!("data: {{\"n\":{n}}}\n\n"))
}

fn half() -> Step {
    write("data: {\"n\":\"never whol")
}

fn oversize(bytes: usize) -> impl Iterator<Item = Step> + Send {
    static PAD: [u8; 64 << 10] = [b'x'; 64 << 10];
    let pad = (0..bytes.div_ceil(PAD.len()))
        .map(move |i| write(Bytes::from_static(&PAD[..PAD.len().min(bytes - i * PAD.len())])));
    [good(1), write("data: ")].into_iter().chain(pad).chain([write("\n\n"), good(2)])
}
