"""The client matrix: real clients read scripted answers, directly and through Sidestream, and must make the same of both.

Started by scripts/clients, which installs the clients and builds the binary. Environment: SIDESTREAM (the binary), NODE,
INSTALLED (where the packages are). Writes INSTALLED/table.md and results.json; ends with 1 where a cell differs that
differences.toml does not explain.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import pathlib
import sys

import report
import runners
import verdict
from entries import ENTRIES
from sidecar import Sidecar
from wire.backend import Backend
from wire.scenarios import CUTS, SCENARIOS

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE.parent / "data" / "clients" / "client-matrix.json"
# The smallest set that has a Python client that breaks on extra blocks, a client that breaks on partial events, one that
# checks every event against a schema, and one whose order of events is checked.
FAST = ["openai-python chat (openai PyPI 2*", "openai-node chat*", "ai DefaultChatTransport (ai 7*", "@ag-ui/client*"]
CUT_SCENARIOS = [f"cut-{number}{kind}" for kind in ("", "-rst") for number in range(CUTS)]
PROCESSES = 3


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/clients", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the names of the clients to run; default: all")
    parser.add_argument("--matrix", action="store_true", help="the scenarios of the matrix only")
    parser.add_argument("--cuts", action="store_true", help="the cuts only: answers that break off at 20 places")
    parser.add_argument("--fast", action="store_true", help="four clients over the scenarios of the matrix")
    parser.add_argument("--config", type=pathlib.Path, help="Sidestream's configuration file; default: none")
    parser.add_argument("--scenario", action="append", help="only this scenario; may be repeated")
    return parser.parse_args()


def chosen(options):
    """The entry points and scenarios to run."""
    entries = [e for e in ENTRIES if not options.names or any(name in e.key for name in options.names)]
    if options.fast:
        entries = [e for e in entries if any(verdict.fnmatch.fnmatchcase(e.key, p) for p in FAST)]
    matrix, cuts = options.matrix or options.fast, options.cuts
    scenarios = [*(SCENARIOS if matrix or not cuts else []), *(CUT_SCENARIOS if cuts or not matrix else [])]
    return entries, options.scenario or scenarios


async def play(entries, scenarios, installed, config):
    """Runs every entry point over every scenario both ways. Answers cells by (entry, scenario, way)."""
    backend = Backend()
    direct = await backend.listen()
    sidecar = await Sidecar.start(direct, installed / "sidestream.log", config)
    ways = {"direct": direct, "through": sidecar.origin}
    gate = asyncio.Semaphore(PROCESSES)

    async def one(entry):
        keys = [(scenario, way) for scenario in scenarios for way in ways]
        cells = [
            {"id": number, "url": f"{ways[way]}/s/{scenario}/{entry.slug}/{entry.dialect}"}
            for number, (scenario, way) in enumerate(keys)
        ]
        async with gate:
            results = await runners.run(entry, cells, installed)
        return {(entry, *key): verdict.Cell.of(results[number]) for number, key in enumerate(keys)}

    try:
        found = {}
        for results in await asyncio.gather(*map(one, entries)):
            found |= results
        return found
    finally:
        await sidecar.stop()


def main():
    options = arguments()
    installed = pathlib.Path(os.environ["INSTALLED"])
    entries, scenarios = chosen(options)
    config = options.config.read_text() if options.config else ""
    cells = asyncio.run(play(entries, scenarios, installed, config))
    whole = entries == ENTRIES and not options.scenario
    outcome = report.Report(cells, verdict.recorded(FILE), verdict.expected(HERE / "differences.toml"), whole)
    (installed / "results.json").write_text(
        json.dumps(
            [
                {"client": e.row, "version": e.version, "scenario": s, "way": w, **dataclasses.asdict(cell)}
                for (e, s, w), cell in cells.items()
            ],
            ensure_ascii=False,
            indent=1,
        )
    )
    text = outcome.text()
    (installed / "table.md").write_text(text)
    print(text)
    sys.exit(1 if outcome.unexplained else 0)


if __name__ == "__main__":
    main()
