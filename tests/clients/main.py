"""What scripts/clients starts once everything is installed: a scripted backend, Sidestream before it, and the clients.

Environment: SIDESTREAM (the binary), NODE, INSTALLED (where the packages are, and where the results go). Ends with 1
where something differs that differences.toml does not explain.
"""

import argparse
import asyncio
import json
import os
import pathlib
import sys

import matrix
import replays
import report
import runners
import verdict
from sidecar import Sidecar
from wire.backend import Backend

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE.parent / "data" / "clients" / "client-matrix.json"


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/clients", description="Real clients, with and without Sidestream.")
    parser.add_argument("names", nargs="*", help="parts of the names of the clients to run; default: all")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--matrix", action="store_true", help="the scenarios of the matrix only")
    part.add_argument("--cuts", action="store_true", help="answers that break off at 20 places only")
    part.add_argument("--fast", action="store_true", help="four clients over the scenarios of the matrix")
    part.add_argument("--replays", action="store_true", help="compacted replays, read by real accumulators")
    parser.add_argument("--config", type=pathlib.Path, help="Sidestream's configuration file; default: none")
    parser.add_argument("--scenario", action="append", help="only this scenario; may be repeated")
    return parser.parse_args()


async def play(options, installed, expected):
    """Runs what was asked for and answers what to say about it: something with `text()` and `unexplained`."""
    backend = Backend()
    await backend.listen()
    config = options.config.read_text() if options.config else ""
    sidecar = await Sidecar.start(backend.origin, installed / "sidestream.log", config)
    try:
        if options.replays:
            found = await replays.play(backend, sidecar, options.names, installed)
            return replays.Outcome(*found, expected)
        entries, scenarios = matrix.chosen(options)
        ways = {"direct": backend.origin, "through": sidecar.origin}
        parts = await runners.each(entries, lambda entry: matrix.read(entry, scenarios, ways, installed))
        cells = {key: cell for part in parts for key, cell in part.items()}
        (installed / "results.json").write_text(json.dumps(matrix.as_json(cells), ensure_ascii=False, indent=1))
        return report.Report(cells, verdict.recorded(FILE), expected, matrix.everything(entries, options))
    finally:
        await sidecar.stop()


def main():
    options = arguments()
    installed = pathlib.Path(os.environ["INSTALLED"])
    outcome = asyncio.run(play(options, installed, verdict.expected(HERE / "differences.toml")))
    text = outcome.text()
    (installed / "table.md").write_text(text + "\n")
    print(text)
    sys.exit(1 if outcome.unexplained else 0)


main()
