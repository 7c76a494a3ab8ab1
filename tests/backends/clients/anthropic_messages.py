"""The official anthropic package. Argument: {"url", "model", "headers"}; a line a delta, then the result."""

import json
import sys

from anthropic import Anthropic

ask = json.loads(sys.argv[1])
client = Anthropic(base_url=ask["url"], api_key="none", default_headers=ask.get("headers", {}))
with client.messages.stream(model=ask["model"], max_tokens=100, messages=[{"role": "user", "content": "hi"}]) as stream:
    for delta in stream.text_stream:
        print(json.dumps({"delta": delta}), flush=True)
    message = stream.get_final_message()
text = "".join(block.text for block in message.content if block.type == "text")
print(json.dumps({"text": text, "end": message.stop_reason, "usage": message.usage.output_tokens}), flush=True)
