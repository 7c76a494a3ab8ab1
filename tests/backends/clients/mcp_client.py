"""The official mcp package. Argument: {"url", "to"}; a line a progress notification, then the result."""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

ask = json.loads(sys.argv[1])


async def progress(done, total, message):
    print(json.dumps({"progress": done}), flush=True)


async def main():
    async with streamable_http_client(ask["url"] + "/mcp") as streams:
        async with ClientSession(streams[0], streams[1]) as session:
            first = await session.initialize()
            result = await session.call_tool("count", {"to": ask["to"]}, progress_callback=progress)
            print(json.dumps({"text": result.content[0].text, "protocol": first.protocol_version}), flush=True)


asyncio.run(main())
