"""An MCP server over Streamable HTTP, with the Python SDK: CRLF framing, a tool that reports progress."""

import socket

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("toy")


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Counts slowly."""
    for n in range(1, to + 1):
        await ctx.report_progress(n, to)
        await anyio.sleep(0.05)
    return f"counted to {to}"


if __name__ == "__main__":
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning")).run(sockets=[listener])
