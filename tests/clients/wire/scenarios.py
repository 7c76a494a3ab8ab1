"""What is changed on the wire: every scenario of tests/data/clients/client-matrix.json as an answer to be written, and
recorded answers that break off.

An answer is a head, a list of writes (each a chunk of the body, sent in one piece) and how the connection ends. The
scripted backend only writes it; nothing here opens a socket.
"""

import dataclasses
import json
import pathlib
import zlib

import brotli

from .dialects import DIALECTS, TEXT, Event

COMMENT = b": keep-alive\n"
BLANK = b"\n"
CUTS = 20
RECORDINGS = pathlib.Path(__file__).resolve().parents[2] / "data" / "sse" / "visible"
# What breaks off: a recording per dialect. The one without a dialect has the answer of the matrix.
RECORDED = {
    "chat": "openai-chat__openai-toolcall.sse",
    "responses": "openai-responses__openai-text.sse",
    "anthropic": "anthropic-messages__thinking.sse",
    "ui": "vercel-ui-message-stream__tool-multistep.sse",
    "ag-ui": "ag-ui__dotnet-backend-tools.sse",
    "gemini": "gemini-sse__toolcall-partial-args.sse",
    "mistral": "openai-chat__mistral-magistral.sse",
    "cohere": "cohere-v2__text.sse",
    "langgraph": "langgraph-runs-stream__resumable-ids.sse",
}


@dataclasses.dataclass
class Answer:
    """One HTTP answer. `end`: `clean`, or `cut`, where the connection closes before the body is complete."""

    writes: list[bytes]
    status: str = "200 OK"
    content_type: str | None = "text/event-stream"
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    version: str = "1.1"
    end: str = "clean"


def lines(event, colon=": ", before=(), after=(), data_first=False, pretty=False):
    """The lines of one event, without the blank line; `before` and `after` are whole lines around its own."""
    data = event.data
    if pretty and data != "[DONE]":
        data = json.dumps(json.loads(data), ensure_ascii=False, indent=2)
    name = [f"event{colon}{event.name}"] if event.name else []
    payload = [f"data{colon}{part}" for part in data.split("\n")]
    own = [*payload, *name] if data_first else [*name, *payload]
    return [*before, *own, *after]


def encoded(event, **how):
    """One event as bytes, with the blank line that ends it."""
    return ("\n".join(lines(event, **how)) + "\n\n").encode()


def half(events):
    """The number of the event where cuts and damage are."""
    return len(events) // 2


def base(events):
    return [encoded(e) for e in events]


def around(between, events, ids=False, at_end=True):
    """`between` before every event, and after the last one."""
    bodies = numbered(events) if ids else base(events)
    return [piece for body in bodies for piece in (between, body)] + ([between] if at_end else [])


def numbered(events):
    return [encoded(e, before=[f"id: {number}"]) for number, e in enumerate(events, 1)]


def third(extra, events):
    """`extra` after the second event."""
    return [*base(events[:2]), extra, *base(events[2:])]


def changed(old, new, events):
    return [body.replace(old, new) for body in base(events)]


def in_pieces(size, events):
    body = b"".join(base(events))
    return [body[at : at + size] for at in range(0, len(body), size)]


def damaged(events):
    """One event in which the last bytes of a character are missing: half of them."""
    bodies = base(events)
    at = half(events)
    body = bodies[at]
    for character in ("🌍", "ö"):
        whole = character.encode()
        if whole in body:
            bodies[at] = body.replace(whole, whole[: len(whole) // 2], 1)
            return bodies
    raise ValueError("the event in the middle has no character of several bytes")


def gzipped(events):
    packer = zlib.compressobj(wbits=31)
    bodies = [packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH) for body in base(events)]
    return [*bodies, packer.flush()]


def brotlied(events):
    packer = brotli.Compressor()
    bodies = [packer.process(body) + packer.flush() for body in base(events)]
    return [*bodies, packer.finish()]


def truncated(events):
    at = half(events)
    body = encoded(events[at])
    return [*base(events[:at]), body[: len(body) // 2]]


def without_end(dialect, events):
    return base(events[:-1] if dialect.has_end else events)


def cut_at(number, dialect_name):
    """A body up to the cut of that number: 0 is before its first byte, the last one before its last byte."""
    name = RECORDED.get(dialect_name)
    body = (RECORDINGS / name).read_bytes() if name else b"".join(base(DIALECTS[dialect_name].events()))
    return body[: (len(body) - 1) * number // (CUTS - 1)]


def answer(scenario, dialect_name):
    """The answer of `scenario` in that dialect. `cut-N` and `cut-N-rst` are the cuts of `scripts/clients --cuts`."""
    if scenario.startswith("cut-"):
        number, *rest = scenario.removeprefix("cut-").split("-")
        return Answer([cut_at(int(number), dialect_name)], end="reset" if rest else "cut")
    dialect = DIALECTS[dialect_name]
    return SCENARIOS[scenario](dialect, dialect.events())


def simple(change):
    """A scenario that changes the writes alone."""
    return lambda dialect, events: Answer(change(events))


def head(**fields):
    """A scenario that changes the head alone."""
    return lambda dialect, events: Answer(base(events), **fields)


PING_DATA = Event("{}", "ping")
STATUS = Event('{"type":"sidecar.status","state":"reconnected"}', "sidecar.status")
STATUS_WITHOUT_TYPE = Event('{"state":"x"}', "sidecar.status")

SCENARIOS = {
    "base": simple(base),
    "comments": simple(lambda e: around(COMMENT + BLANK, e)),
    "commentline": simple(lambda e: around(COMMENT, e)),
    "comment_tail": simple(lambda e: [*base(e), COMMENT + BLANK]),
    "ids": simple(numbered),
    "ids_comments": simple(lambda e: around(COMMENT + BLANK, e, ids=True)),
    "ids_commentline": simple(lambda e: around(COMMENT, e, ids=True)),
    "id_block": simple(lambda e: third(b"id: 42\n\n", e)),
    "retry_block": simple(lambda e: [b"retry: 3000\n\n", *base(e)]),
    "retry_inline": simple(lambda e: [encoded(e[0], before=["retry: 3000"]), *base(e[1:])]),
    "crlf": simple(lambda e: changed(b"\n", b"\r\n", e)),
    "cr": simple(lambda e: changed(b"\n", b"\r", e)),
    "bom": simple(lambda e: [b"\xef\xbb\xbf" + encoded(e[0]), *base(e[1:])]),
    "nospace": simple(lambda e: [encoded(x, colon=":") for x in e]),
    "order": simple(lambda e: [encoded(x, data_first=True) for x in e]),
    "unknown_field": simple(lambda e: [encoded(x, after=["x-sidecar: 1"]) for x in e]),
    "multidata": simple(lambda e: [encoded(x, pretty=True) for x in e]),
    "ping_dataless": simple(lambda e: around(b"event: ping\n\n", e, at_end=False)),
    "ping_data": simple(lambda e: around(encoded(PING_DATA), e, at_end=False)),
    "unknown_event": simple(lambda e: third(encoded(STATUS), e)),
    "unknown_event_nodata_type": simple(lambda e: third(encoded(STATUS_WITHOUT_TYPE), e)),
    "emptydata": simple(lambda e: third(b"data: \n\n", e)),
    "extrablank": simple(lambda e: around(BLANK + BLANK, e)),
    "notrailing": simple(lambda e: [*base(e[:-1]), encoded(e[-1])[:-2]]),
    "onenl_end": simple(lambda e: [*base(e[:-1]), encoded(e[-1])[:-1]]),
    "truncated": simple(truncated),
    "truncated_reset": lambda d, e: Answer(truncated(e), end="cut"),
    "cut_boundary_clean": simple(lambda e: base(e[: half(e)])),
    "cut_boundary_reset": lambda d, e: Answer(base(e[: half(e)]), end="cut"),
    "nodone": lambda d, e: Answer(without_end(d, e)),
    "nodone_reset": lambda d, e: Answer(without_end(d, e), end="cut"),
    "doubledone": simple(lambda e: [*base(e), encoded(e[-1])]),
    "afterdone": simple(lambda e: [*base(e), encoded(e[3])]),
    "extra_done": simple(lambda e: [*base(e), encoded(Event("[DONE]"))]),
    "dupstart": simple(lambda e: [*base(e[:2]), *base(e)]),
    "split1": simple(lambda e: in_pieces(1, e)),
    "split7": simple(lambda e: in_pieces(7, e)),
    "onechunk": simple(lambda e: [b"".join(base(e))]),
    "gzip": lambda d, e: Answer(gzipped(e), headers=[("Content-Encoding", "gzip")]),
    "br": lambda d, e: Answer(brotlied(e), headers=[("Content-Encoding", "br")]),
    "ct_charset": head(content_type="text/event-stream; charset=utf-8"),
    "ct_plain": head(content_type="text/plain; charset=utf-8"),
    "ct_json": head(content_type="application/json"),
    "ct_none": head(content_type=None),
    "http10": head(version="1.0"),
    "badutf8": simple(damaged),
    "s204": lambda d, e: Answer([], status="204 No Content", content_type=None),
    "location": head(headers=[("Location", "http://other.invalid/elsewhere")]),
    "rollup": lambda d, e: Answer(base(d.events([TEXT]))),
    "tail": simple(lambda e: base(e[-5:])),
}
