"""A chat backend as many teams have one: FastAPI, sse-starlette, an answer token by token."""

import asyncio
import json
import socket
import sys

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from sse_starlette.sse import EventSourceResponse

app = FastAPI()
PACE = 0.03
PAGES = sys.argv[1] if len(sys.argv) > 1 else "."


def words(message: str) -> list[str]:
    return [f"{n}:{message}\n" if n % 5 == 0 else f"{n}:{message} " for n in range(40)]


async def answer(message: str):
    for n, word in enumerate(words(message)):
        # What sse-starlette makes of a line break in `data`: several `data:` lines.
        yield {"event": "token", "data": word} if n % 2 else {"data": json.dumps({"token": word})}
        await asyncio.sleep(PACE)
    yield {"event": "done", "data": "[DONE]"}


@app.post("/api/chat")
async def chat(request: Request):
    body = await request.json()
    return EventSourceResponse(answer(body["message"]), headers={"X-App": "toy"})


@app.get("/api/answer")
async def by_get(message: str):
    return EventSourceResponse(answer(message))


@app.post("/api/broken")
async def broken():
    async def half():
        yield {"data": "one"}
        raise RuntimeError("the model has gone")

    return EventSourceResponse(half())


@app.get("/{page}.html")
def page(page: str):
    return FileResponse(f"{PAGES}/{page}.html")


@app.get("/{script}.js")
def script(script: str):
    return FileResponse(f"{PAGES}/{script}.js")


if __name__ == "__main__":
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
