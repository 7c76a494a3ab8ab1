"""The Python clients of the matrix: for each entry point a function that reads one answer as an application would.

A client takes the URL of its scenario and answers (text, end); whatever it raises is the cell's error. They run in
threads, several cells at once.
"""

import asyncio
import importlib
import json

DEADLINE = 10.0
# This client opens a closed stream again for ever, 5 s later: that it has not ended by then is its result.
ENDLESS = 4.5


def openai_chat(url):
    """openai.OpenAI().chat.completions.create(stream=True)"""
    client = importlib.import_module("openai").OpenAI(base_url=url, api_key="k", timeout=DEADLINE)
    text, end = "", None
    question = [{"role": "user", "content": "hi"}]
    for chunk in client.chat.completions.create(model="m", messages=question, stream=True):
        for choice in chunk.choices or []:
            text += choice.delta.content or ""
            end = choice.finish_reason or end
    return text, end


def openai_responses(url):
    """openai.OpenAI().responses.create(stream=True)"""
    client = importlib.import_module("openai").OpenAI(base_url=url, api_key="k", timeout=DEADLINE)
    text, end = "", None
    for event in client.responses.create(model="m", input="hi", stream=True):
        kind = getattr(event, "type", None)
        if kind == "response.output_text.delta":
            text += event.delta
        elif kind == "response.completed":
            end = "completed"
    return text, end


QUESTION = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def anthropic_raw(url):
    """anthropic.Anthropic().messages.create(stream=True)"""
    client = importlib.import_module("anthropic").Anthropic(base_url=url, api_key="k", timeout=DEADLINE)
    text, end = "", None
    for event in client.messages.create(**QUESTION, stream=True):
        kind = getattr(event, "type", None)
        if kind == "content_block_delta":
            text += getattr(event.delta, "text", "")
        elif kind == "message_stop":
            end = "stop"
    return text, end


def anthropic_stream(url):
    """anthropic.Anthropic().messages.stream()"""
    client = importlib.import_module("anthropic").Anthropic(base_url=url, api_key="k", timeout=DEADLINE)
    with client.messages.stream(**QUESTION) as stream:
        text = "".join(stream.text_stream)
        return text, stream.get_final_message().stop_reason


def httpx_sse(url):
    """httpx_sse.connect_sse()"""
    httpx, sse = importlib.import_module("httpx"), importlib.import_module("httpx_sse")
    text, end = "", None
    with httpx.Client(timeout=DEADLINE) as client, sse.connect_sse(client, "POST", url, json={"q": "hi"}) as source:
        for event in source.iter_sse():
            if event.data == "[DONE]":
                end = "done"
            elif event.data and event.event == "message":
                text += json.loads(event.data)["t"]
    return text, end


def requests_lines(url):
    """requests.post(stream=True).iter_lines(): the reader that many write by hand"""
    requests = importlib.import_module("requests")
    text, end = "", None
    with requests.post(url, json={"q": "hi"}, stream=True, timeout=DEADLINE) as response:
        for line in response.iter_lines(decode_unicode=True):
            if not line or not line.startswith("data: "):
                continue
            data = line[len("data: ") :]
            if data == "[DONE]":
                end = "done"
                break
            text += json.loads(data)["t"]
    return text, end


def aiohttp_sse(url):
    """aiohttp_sse_client2.EventSource, as an EventSource: by GET"""
    client = importlib.import_module("aiohttp_sse_client2.client")

    async def read():
        text = ""
        async with client.EventSource(url) as source:
            async for event in source:
                if event.data == "[DONE]":
                    return text, "done"
                if event.data and event.type is None:
                    text += json.loads(event.data)["t"]
        return text, None

    return asyncio.run(asyncio.wait_for(read(), ENDLESS))


CLIENTS = {
    "openai-python chat": openai_chat,
    "openai-python responses": openai_responses,
    "anthropic-python raw": anthropic_raw,
    "anthropic-python stream()": anthropic_stream,
    "httpx-sse": httpx_sse,
    "requests iter_lines": requests_lines,
    "aiohttp-sse-client2": aiohttp_sse,
}
