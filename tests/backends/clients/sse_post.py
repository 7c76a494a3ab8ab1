"""A plain Python client: httpx and httpx-sse. Argument: {"url", "json", "headers"}; a line an event, then how it ended."""

import json
import sys

import httpx
from httpx_sse import connect_sse

ask = json.loads(sys.argv[1])
end = "clean"
with httpx.Client(timeout=60) as client:
    try:
        with connect_sse(client, "POST", ask["url"], json=ask["json"], headers=ask.get("headers", {})) as source:
            print(json.dumps({"head": {k: v for k, v in source.response.headers.items() if k.startswith("x-") or k == "content-type"}}), flush=True)
            for event in source.iter_sse():
                print(json.dumps({"event": event.event, "data": event.data}), flush=True)
    except httpx.HTTPError:
        # Which error it is depends on whether the connection's end or its reset is seen first.
        end = "broken"
print(json.dumps({"end": end}), flush=True)
