"""The answer `Hello wörld 🌍!` as each dialect puts it on the wire: events, before any scenario changes them.

The shapes are those behind tests/data/clients/client-matrix.json, as far as its results show them: how many events
there are before and after the text follows from `tail` (the last five), from where the cuts fall (event number n/2) and
from `afterdone` (event number 3 again); byte positions in its error messages fix most of the JSON.
"""

import dataclasses
import json

DELTAS = ["Hel", "lo ", "wör", "ld 🌍", "!"]
TEXT = "".join(DELTAS)


@dataclasses.dataclass(frozen=True)
class Event:
    """One event: its data, and its name (`event:`) if the dialect has names."""

    data: str
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a dialect frames a list of text pieces, and whether its last event says that the answer is whole."""

    frame: object
    has_end: bool = True

    def events(self, deltas=None):
        """The whole answer; `deltas` are its pieces, by default the five of the matrix."""
        return self.frame(DELTAS if deltas is None else deltas)


def compact(value):
    """JSON as JavaScript writes it: no spaces, no escapes but the necessary."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def typed(kind, **fields):
    """An event whose name is repeated as `type` in its JSON."""
    return Event(compact({"type": kind, **fields}), kind)


def untyped(kind, **fields):
    """An event that says its type in the JSON alone."""
    return Event(compact({"type": kind, **fields}))


def chat(deltas):
    """OpenAI Chat Completions, and Mistral's the same."""

    def chunk(delta, finish=None):
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return Event(compact({**head, "choices": [choice]}))

    first = chunk({"role": "assistant", "content": ""})
    return [first, *(chunk({"content": d}) for d in deltas), chunk({}, "stop"), Event("[DONE]")]


def responses(deltas):
    """OpenAI Responses."""
    place = {"output_index": 0, "content_index": 0}
    text = "".join(deltas)
    part = {"type": "output_text", "text": "", "annotations": []}
    item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    whole_part = {**part, "text": text}
    whole_item = {**item, "status": "completed", "content": [whole_part]}

    def response(status, output):
        fields = {"id": "resp_1", "object": "response", "created_at": 1700000000, "status": status, "model": "m"}
        fields |= {"error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "output": output}
        fields |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": 1, "top_p": 1}
        usage = {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5}
        usage |= {"output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 6}
        return fields | ({"usage": usage} if status == "completed" else {"usage": None})

    events = [
        ("response.created", {"response": response("in_progress", [])}),
        ("response.in_progress", {"response": response("in_progress", [])}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        ("response.content_part.added", {"item_id": "msg_1", **place, "part": part}),
        *(("response.output_text.delta", {"item_id": "msg_1", **place, "delta": d}) for d in deltas),
        ("response.output_text.done", {"item_id": "msg_1", **place, "text": text}),
        ("response.content_part.done", {"item_id": "msg_1", **place, "part": whole_part}),
        ("response.output_item.done", {"output_index": 0, "item": whole_item}),
        ("response.completed", {"response": response("completed", [whole_item])}),
    ]
    return [typed(kind, sequence_number=number, **fields) for number, (kind, fields) in enumerate(events)]


def anthropic(deltas):
    """Anthropic Messages."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
    return [
        typed("message_start", message=message),
        typed("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        typed("ping"),
        *(typed("content_block_delta", index=0, delta={"type": "text_delta", "text": d}) for d in deltas),
        typed("content_block_stop", index=0),
        typed("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 5}),
        typed("message_stop"),
    ]


def ui(deltas):
    """The UI message stream of the Vercel AI SDK."""
    return [
        untyped("start", messageId="m1"),
        untyped("text-start", id="t1"),
        *(untyped("text-delta", id="t1", delta=d) for d in deltas),
        untyped("text-end", id="t1"),
        untyped("finish"),
        Event("[DONE]"),
    ]


def ag_ui(deltas):
    """AG-UI."""
    return [
        untyped("RUN_STARTED", threadId="t1", runId="r1"),
        untyped("TEXT_MESSAGE_START", messageId="m1", role="assistant"),
        *(untyped("TEXT_MESSAGE_CONTENT", messageId="m1", delta=d) for d in deltas),
        untyped("TEXT_MESSAGE_END", messageId="m1"),
        untyped("RUN_FINISHED", threadId="t1", runId="r1"),
    ]


def gemini(deltas):
    """Gemini's streamGenerateContent with alt=sse: the last piece carries the finish reason, no event ends it."""

    def chunk(index, text):
        candidate = {"content": {"parts": [{"text": text}], "role": "model"}}
        candidate |= {"finishReason": "STOP"} if index == len(deltas) - 1 else {}
        body = {"candidates": [candidate | {"index": 0}], "modelVersion": "m", "responseId": "r1"}
        return Event(compact(body))

    return [chunk(i, d) for i, d in enumerate(deltas)]


def cohere(deltas):
    """Cohere v2 chat."""

    def text(t):
        return {"message": {"content": {"text": t}}}

    return [
        typed("message-start", id="m1", delta={"message": {"role": "assistant"}}),
        typed("content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}}),
        *(typed("content-delta", index=0, delta=text(d)) for d in deltas),
        typed("content-end", index=0),
        typed("message-end", delta={"finish_reason": "COMPLETE"}),
    ]


def langgraph(deltas):
    """A LangGraph run, stream modes messages-tuple and values: no event ends it."""
    text = "".join(deltas)

    def message(content):
        chunk = {"id": "m1", "type": "AIMessageChunk", "content": content}
        return Event(compact([chunk, {"langgraph_node": "a"}]), "messages")

    return [
        Event(compact({"run_id": "r1", "attempt": 1}), "metadata"),
        *(message(d) for d in deltas),
        Event(compact({"messages": [{"id": "m1", "type": "ai", "content": text}]}), "values"),
    ]


def generic(deltas):
    """No dialect: `{"t": piece}`, then `[DONE]`."""
    return [*(Event(compact({"t": d})) for d in deltas), Event("[DONE]")]


DIALECTS = {
    "chat": Dialect(chat),
    "responses": Dialect(responses),
    "anthropic": Dialect(anthropic),
    "ui": Dialect(ui),
    "ag-ui": Dialect(ag_ui),
    "gemini": Dialect(gemini, has_end=False),
    "mistral": Dialect(chat),
    "cohere": Dialect(cohere),
    "langgraph": Dialect(langgraph, has_end=False),
    "generic": Dialect(generic),
}
