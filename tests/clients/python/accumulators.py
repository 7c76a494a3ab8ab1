"""The accumulators of the Python SDKs: each reads one whole answer and answers the state that the SDK built from it.

What an SDK says about text on the way (`snapshot`) is part of the state: the last event of some dialects repeats the
whole answer, and would hide what was made of the pieces.
"""

import importlib

QUESTION = [{"role": "user", "content": "hi"}]
# What says which block an event belongs to, in one dialect or another.
PLACE = ("output_index", "content_index", "summary_index", "index")


def snapshots(stream):
    """The last snapshot of every block that the SDK accumulates while it reads."""
    found = {}
    for event in stream:
        if hasattr(event, "snapshot"):
            place = [str(getattr(event, name, "")) for name in PLACE]
            found[" ".join([event.type, *place])] = plain(event.snapshot)
    return found


def plain(value):
    """A model of the SDK, or a list of them, as JSON."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.model_dump(mode="json", warnings=False) if hasattr(value, "model_dump") else value


def openai_chat(url):
    """openai.OpenAI().chat.completions.stream()"""
    client = importlib.import_module("openai").OpenAI(base_url=url, api_key="k", max_retries=0)
    with client.chat.completions.stream(model="m", messages=QUESTION) as stream:
        last = {key: value for key, value in snapshots(stream).items() if not key.startswith("chunk")}
        return {"snapshots": last, "final": plain(stream.get_final_completion())}


def openai_responses(url):
    """openai.OpenAI().responses.stream()"""
    client = importlib.import_module("openai").OpenAI(base_url=url, api_key="k", max_retries=0)
    with client.responses.stream(model="m", input="hi") as stream:
        return {"snapshots": snapshots(stream), "final": plain(stream.get_final_response())}


def anthropic(url):
    """anthropic.Anthropic().messages.stream()"""
    client = importlib.import_module("anthropic").Anthropic(base_url=url, api_key="k", max_retries=0)
    with client.messages.stream(model="m", max_tokens=100, messages=QUESTION) as stream:
        return {"snapshots": snapshots(stream), "final": plain(stream.get_final_message())}


ACCUMULATORS = {
    "openai-python chat": openai_chat,
    "openai-python responses": openai_responses,
    "anthropic-python stream()": anthropic,
}
