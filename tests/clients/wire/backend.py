"""The scripted backend: `/s/SCENARIO/CLIENT/DIALECT/…` answers that scenario in that dialect, whatever the method,
and `/b/NAME/…` the answer of that name.

It writes every byte itself, one chunk per write, so that nothing of an HTTP library is between scenario and wire.
Connections stay open between answers, where the answer allows it: some clients word a cut answer otherwise if they were
told that the connection would close.
"""

import asyncio
import socket
import struct

from .scenarios import answer

# Between two writes, so that they stay two for the reader. Pieces of an event follow one another at once.
PAUSE = 0.001
WITHOUT_PAUSE = {"split1", "split7"}


class Backend:
    """A listening backend, with the answers that have names."""

    def __init__(self):
        self.named = {}
        self.server = None
        self.origin = None

    async def listen(self):
        """Binds a free loopback port; `origin` is where it is."""
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.origin = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def serve(self, reader, writer):
        try:
            stays_open = True
            while stays_open:
                path = await read_request(reader)
                given, pause = self.given(path)
                await write(writer, given, pause)
                stays_open = given.end == "clean" and given.version == "1.1"
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client left, or all is over.
        finally:
            writer.close()

    def given(self, path):
        """The answer to a path, and how long to wait between its writes."""
        _, kind, name, *rest = path.split("/")
        if kind == "b":
            return self.named[name], 0
        return answer(name, rest[1]), 0 if name in WITHOUT_PAUSE else PAUSE


async def read_request(reader):
    """Reads one request whole and answers its path, without the query."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *fields = head.rstrip("\r\n").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    if "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return first.split(" ")[1].partition("?")[0]


async def write(writer, given, pause):
    """Writes the answer, and ends the connection as it says."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    has_body = not given.status.startswith("204")
    chunked = given.version == "1.1" and has_body
    fields = [("Content-Type", given.content_type)] if given.content_type else []
    fields += [*given.headers, *([("Transfer-Encoding", "chunked")] if chunked else [])]
    head = f"HTTP/{given.version} {given.status}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields) + "\r\n"
    writer.write(head.encode())
    for piece in given.writes:
        if not piece:
            continue
        if pause:
            await asyncio.sleep(pause)
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    if given.end == "clean" and chunked:
        writer.write(b"0\r\n\r\n")
    if given.end == "reset":
        # What was written is read first; a reset that overtakes it would be another cut.
        await asyncio.sleep(0.02)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await writer.drain()
