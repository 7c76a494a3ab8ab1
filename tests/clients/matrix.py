"""The client matrix: every entry point reads every scripted answer, directly and through Sidestream."""

import runners
import verdict
from entries import ENTRIES
from wire.scenarios import CUTS, SCENARIOS

# The smallest set that has a Python client that breaks on extra blocks, a client that breaks on partial events, one
# that checks every event against a schema, and one that checks the order of events.
FAST = ["openai-python chat (openai PyPI 2.54.0)", "openai-node chat (openai npm 7.55.0)"]
FAST += ["ai DefaultChatTransport (ai 7.0.173)", "@ag-ui/client HttpAgent (@ag-ui/client 1.0.0)"]
CUT_SCENARIOS = [f"cut-{number}{kind}" for kind in ("", "-rst") for number in range(CUTS)]


def chosen(options):
    """The entry points and scenarios to run."""
    entries = [e for e in ENTRIES if not options.names or any(name in e.key for name in options.names)]
    if options.fast:
        entries = [e for e in entries if e.key in FAST]
    matrix = [] if options.cuts else list(SCENARIOS)
    cuts = [] if options.matrix or options.fast else CUT_SCENARIOS
    return entries, options.scenario or matrix + cuts


async def read(entry, scenarios, ways, installed):
    """What one entry point made of the scenarios, both ways: cells by (entry, scenario, way)."""
    keys = [(scenario, way) for scenario in scenarios for way in ways]
    cells = [
        {"id": number, "url": f"{ways[way]}/s/{scenario}/{entry.slug}/{entry.dialect}"}
        for number, (scenario, way) in enumerate(keys)
    ]
    results = await runners.run("clients", entry, cells, installed)
    return {(entry, *key): verdict.Cell.of(results[number]) for number, key in enumerate(keys)}


def everything(entries, options):
    """Whether all is run, so that an explanation of a difference that does not occur is out of date."""
    return entries == ENTRIES and not (options.matrix or options.cuts or options.scenario or options.config)


def as_json(cells):
    """The cells of a run, in the form of the recorded matrix."""
    return [
        {
            "client": entry.row,
            "version": entry.version,
            "scenario": scenario,
            "way": way,
            "result": cell.result,
            "end": cell.end,
            "text": cell.text,
            "detail": cell.detail,
        }
        for (entry, scenario, way), cell in cells.items()
    ]
