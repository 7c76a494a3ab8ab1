"""A real Sidestream process in front of a backend, on free ports, with its store in memory."""

import asyncio
import json
import os


class Sidecar:
    """A running process. What it logs is kept in a file, for whoever looks for the reason of a difference."""

    def __init__(self, process, origin):
        self.process = process
        self.origin = origin

    @classmethod
    async def start(cls, upstream, log, config):
        """Starts the binary named by SIDESTREAM with that configuration; waits until its data listener is open."""
        settings = log.with_suffix(".toml")
        settings.write_text(config)
        arguments = ["--upstream", upstream, "--store", "memory:", "--config", str(settings), "--log-format", "json"]
        for listener in ("listen", "health-listen", "admin-listen"):
            arguments += [f"--{listener}", "127.0.0.1:0"]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(os.environ["SIDESTREAM"], *arguments, stderr=output)
        while not (origin := bound(log)):
            if process.returncode is not None:
                raise RuntimeError(f"sidestream did not start: {log.read_text()}")
            await asyncio.sleep(0.05)
        return cls(process, origin)

    async def stop(self):
        self.process.kill()
        await self.process.wait()


def bound(log):
    """The origin of the data listener, by what the process has logged."""
    for line in log.read_text().splitlines():
        fields = json.loads(line) if line.startswith("{") else {}
        if fields.get("message") == "listening" and fields.get("listener") == "data":
            return f"http://{fields['address']}"
    return None
