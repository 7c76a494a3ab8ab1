"""Runs a client over its cells: one process per entry point, Python or Node, fed and read over its standard streams."""

import asyncio
import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
# The slowest client waits for reconnects; a process that is silent for so long hangs.
PATIENCE = 180
PROCESSES = 3


async def each(entries, read):
    """What `read` answers for every entry point, a few at a time."""
    gate = asyncio.Semaphore(PROCESSES)

    async def one(entry):
        async with gate:
            return await read(entry)

    return await asyncio.gather(*map(one, entries))


def command(entry, installed):
    """How the runner of an entry point is started: the arguments and what its environment has in addition."""
    if entry.runner == "node":
        return [os.environ["NODE"], str(installed / "npm" / "node" / "run.mjs")], {}
    packages = str(installed / entry.runner)
    return [sys.executable, str(HERE / "python" / "run.py")], {"PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}


async def run(what, entry, cells, installed):
    """What the client made of every cell, by its id. `what` is `clients` or `accumulators`, `cells` are `{id, url}`."""
    arguments, environment = command(entry, installed)
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment, "NO_PROXY": "*", "NO_COLOR": "1"},
    )
    job = json.dumps({"what": what, "client": entry.client, "cells": cells}) + "\n"
    try:
        out, errors = await asyncio.wait_for(process.communicate(job.encode()), PATIENCE)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise RuntimeError(f"{entry.key} did not end within {PATIENCE} s") from None
    results = {result["id"]: result for result in map(json.loads, out.decode().splitlines())}
    if process.returncode or len(results) != len(cells):
        tail = errors.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{entry.key}: {len(results)} of {len(cells)} cells, code {process.returncode}\n{tail}")
    return results
