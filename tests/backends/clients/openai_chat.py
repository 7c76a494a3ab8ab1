"""The official openai package. Argument: {"url", "model", "api": "chat"|"responses", "headers"}; a line a delta, then the result."""

import json
import sys

from openai import OpenAI

ask = json.loads(sys.argv[1])
client = OpenAI(base_url=ask["url"] + "/v1", api_key="none", default_headers=ask.get("headers", {}))
text, chunks, last = "", 0, None
if ask.get("api") == "responses":
    with client.responses.stream(model=ask["model"], input="hi") as stream:
        for event in stream:
            chunks += 1
            if event.type == "response.output_text.delta":
                text += event.delta
                print(json.dumps({"delta": event.delta}), flush=True)
        last = stream.get_final_response().status
else:
    stream = client.chat.completions.create(model=ask["model"], messages=[{"role": "user", "content": "hi"}], stream=True)
    for chunk in stream:
        chunks += 1
        for choice in chunk.choices:
            last = choice.finish_reason or last
            if choice.delta.content:
                text += choice.delta.content
                print(json.dumps({"delta": choice.delta.content}), flush=True)
print(json.dumps({"text": text, "chunks": chunks, "end": last}), flush=True)
