"""The official mcp package. Argument: {"url", "to", "mode": "legacy"|"auto"}; a line a progress notification, then the result."""

import asyncio
import json
import sys

from mcp.client.client import Client

ask = json.loads(sys.argv[1])


async def progress(done, total, message):
    print(json.dumps({"progress": done}), flush=True)


async def main():
    async with Client(ask["url"] + "/mcp", mode=ask["mode"]) as client:
        print(json.dumps({"protocol": client.protocol_version}), flush=True)
        result = await client.call_tool("count", {"to": ask["to"]}, progress_callback=progress)
        print(json.dumps({"text": result.content[0].text}), flush=True)


asyncio.run(main())
