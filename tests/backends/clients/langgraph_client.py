"""The official langgraph-sdk. Argument: {"url", "do": "stream"|"join"|"cancel", "thread", "run", "last_event_id", "resumable"}."""

import asyncio
import json
import sys

from langgraph_sdk import get_client

ask = json.loads(sys.argv[1])


def say(part):
    data = part.data
    text = data[0]["content"] if part.event == "messages" else None
    values = [m["content"] for m in data["messages"]] if part.event == "values" else None
    print(json.dumps({"event": part.event, "id": part.id, "text": text, "values": values}), flush=True)


async def main():
    client = get_client(url=ask["url"])
    thread = ask.get("thread") or (await client.threads.create())["thread_id"]
    if ask["do"] == "cancel":
        await client.runs.cancel(thread, ask["run"], wait=True)
        print(json.dumps({"status": (await client.runs.get(thread, ask["run"]))["status"]}), flush=True)
        return
    if ask["do"] == "join":
        parts = client.runs.join_stream(thread, ask["run"], last_event_id=ask.get("last_event_id"))
    else:
        parts = client.runs.stream(
            thread,
            "agent",
            input={"messages": [{"role": "user", "content": ask.get("asked", "hi")}]},
            stream_mode=["messages-tuple", "values"],
            stream_resumable=ask.get("resumable", True),
            on_disconnect=ask.get("on_disconnect"),
            on_run_created=lambda run: print(json.dumps({"thread": thread, "run": run["run_id"]}), flush=True),
        )
    async for part in parts:
        say(part)
    print(json.dumps({"end": "clean"}), flush=True)


asyncio.run(main())
