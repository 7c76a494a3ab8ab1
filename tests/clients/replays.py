"""Compacted replay and real accumulators: an SDK builds the same state from the compacted answer as from the full one.

Every recording of tests/data/sse whose dialect an SDK here reads, and one long answer per dialect, goes through
Sidestream once. Then three answers stand beside each other: the recording, the replay of the run from its first entry
(`?after=`, every event), and the replay without a cursor (compacted). All SDKs of the dialect read all three from the
scripted backend. Started by `scripts/clients --replays`; ends with 1 where a state differs that differences.toml does
not explain.
"""

import asyncio
import dataclasses
import http.client
import json
import pathlib
import urllib.parse

import runners
from entries import ACCUMULATORS
from wire.dialects import DIALECTS
from wire.scenarios import Answer, encoded

RECORDINGS = pathlib.Path(__file__).resolve().parent.parent / "data" / "sse" / "visible"
LONG = {
    "openai-chat": "chat",
    "openai-responses": "responses",
    "anthropic-messages": "anthropic",
    "vercel-ui-message-stream": "ui",
    "ag-ui": "ag-ui",
    "gemini-sse": "gemini",
    "cohere-v2": "cohere",
    "langgraph-runs-stream": "langgraph",
}
WORDS = [f"wörd{number} 🌍 " for number in range(2000)]
# By which these answers say what they are; for the others their events do.
HEADS = {"vercel-ui-message-stream": [("x-vercel-ai-ui-message-stream", "v1")]}
FORMS = ("recording", "full", "compact")
# Of a long answer at most this part of the events is left; otherwise nothing was compacted, and nothing compared.
LEFT = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """An answer to be replayed: a recording, or a long one that was made for this."""

    name: str
    dialect: str
    answer: Answer


def sources():
    """Everything that is replayed."""
    rows = json.loads((RECORDINGS / "index.json").read_text())
    for row in rows:
        if row["dialect"] in LONG:
            head = list(HEADS.get(row["dialect"], []))
            if row["file"].endswith(".gz"):
                head.append(("Content-Encoding", "gzip"))
            yield Source(row["file"], row["dialect"], Answer([(RECORDINGS / row["file"]).read_bytes()], headers=head))
    for dialect, wire in LONG.items():
        body = b"".join(map(encoded, DIALECTS[wire].events(WORDS)))
        yield Source(f"{dialect}__long.sse", dialect, Answer([body], headers=list(HEADS.get(dialect, []))))


def request(origin, method, path, headers):
    """One request; answers the head, the body as far as it came, and whether it broke off."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(origin).netloc, timeout=30)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    try:
        return response, response.read(), False
    except http.client.IncompleteRead as cut:
        return response, cut.partial, True
    finally:
        connection.close()


async def replay(sidecar, source):
    """The full and the compacted answer of a run that has ended."""
    head, _, _ = await asyncio.to_thread(
        request, sidecar.origin, "POST", f"/b/{source.name}/x", {"Sidestream-Session": source.name}
    )
    run, offset = head.headers["Sidestream-Run"], head.headers["Sidestream-Offset"]
    while await active(sidecar, run):
        await asyncio.sleep(0.02)
    path = f"/_sidestream/v1/sessions/{source.name}/runs/{run}/stream"
    return [await fetched(sidecar, f"{path}?after={offset}", source), await fetched(sidecar, path, source)]


async def active(sidecar, run):
    _, body, _ = await asyncio.to_thread(request, sidecar.origin, "GET", f"/_sidestream/v1/runs/{run}", {})
    return json.loads(body)["state"] in ("active", "stalled")


async def fetched(sidecar, path, source):
    """A replay as an answer of the backend: an SDK asks for it by a POST of its own."""
    head, body, broke_off = await asyncio.to_thread(request, sidecar.origin, "GET", path, {})
    assert head.status == 200, f"{path}: {head.status} {body}"
    headers = list(HEADS.get(source.dialect, []))
    end = "cut" if broke_off else "clean"
    return Answer([body], content_type=head.headers["Content-Type"], headers=headers, end=end)


def events(answer):
    """How many events a replay has; it is in canonical framing."""
    return b"".join(answer.writes).count(b"\n\n")


async def play(backend, sidecar, names, installed):
    """Answers the event counts by source, and the states by (accumulator, source, form)."""
    entries = [e for e in ACCUMULATORS if not names or any(name in e.key for name in names)]
    wanted = {entry.dialect for entry in entries}
    counts = {}
    for source in sources():
        if source.dialect not in wanted:
            continue
        backend.named[source.name] = source.answer
        full, compact = await replay(sidecar, source)
        for form, answer in zip(FORMS, (source.answer, full, compact), strict=True):
            backend.named[f"{source.name}.{form}"] = answer
        counts[source] = (events(full), events(compact))

    async def read(entry):
        keys = [(source, form) for source in counts if source.dialect == entry.dialect for form in FORMS]
        cells = [{"id": i, "url": f"{backend.origin}/b/{source.name}.{form}"} for i, (source, form) in enumerate(keys)]
        results = await runners.run("accumulators", entry, cells, installed)
        return {(entry, *key): results[number] for number, key in enumerate(keys)}

    parts = await runners.each(entries, read)
    return counts, {key: result for part in parts for key, result in part.items()}


def state(result):
    """What counts of a result: the state, or the error."""
    return result.get("error") or result["made"]


class Outcome:
    """What the replays came to."""

    def __init__(self, counts, states, expected):
        self.counts, self.states, self.unexplained, self.lines = counts, states, [], []
        for (entry, source, form), result in states.items():
            if form == "compact":
                for other in ("full", "recording"):
                    self.look(entry, source, other, states[entry, source, other], result, expected)

        for source, (full, compact) in counts.items():
            if source.name.endswith("__long.sse") and compact > full * LEFT:
                self.lines.append(f"- {source.name}: {full} events became {compact}. **NOT COMPACTED**")
                self.unexplained.append(source)

    def look(self, entry, source, other, wanted, got, expected):
        if state(wanted) == state(got):
            return
        reasons = [e for e in expected if e.between == other and e.names(entry, source.name)]
        for reason in reasons:
            reason.used = True
        said = reasons[0].reason if reasons else f"**NOT EXPLAINED** {difference(state(wanted), state(got))}"
        self.lines.append(f"- {entry.key}, {source.name}: compacted is not as the {other}. {said}")
        if not reasons:
            self.unexplained.append((entry, source, other))

    def text(self):
        lines = ["| accumulator | answers | as from the full replay | as from the recording | of these, errors |"]
        lines.append("|---|--:|--:|--:|--:|")
        for entry in dict.fromkeys(entry for entry, _, _ in self.states):
            mine = [s for e, s, form in self.states if e == entry and form == "compact"]
            cells = [[self.states[entry, s, form] for form in FORMS] for s in mine]
            full = sum(state(f) == state(c) for _, f, c in cells)
            direct = sum(state(r) == state(c) for r, _, c in cells)
            errors = sum("error" in c for _, _, c in cells)
            lines.append(f"| {entry.key} | {len(mine)} | {full} | {direct} | {errors} |")
        lines += ["", "| dialect | answers | events | compacted | the long answer |", "|---|--:|--:|--:|--:|"]
        for dialect in LONG:
            mine = {source: count for source, count in self.counts.items() if source.dialect == dialect}
            if mine:
                full, compact = (sum(count[i] for count in mine.values()) for i in (0, 1))
                long = next(f"{f} -> {c}" for source, (f, c) in mine.items() if source.name.endswith("__long.sse"))
                lines.append(f"| {dialect} | {len(mine)} | {full} | {compact} | {long} |")
        return "\n".join([*lines, "", *self.lines, f"\nUnexplained: {len(self.unexplained)}."])


def difference(wanted, got, path=""):
    """Where two states differ first."""
    if isinstance(wanted, dict) and isinstance(got, dict) and wanted.keys() == got.keys():
        key = next(key for key in wanted if wanted[key] != got[key])
        return difference(wanted[key], got[key], f"{path}/{key}")
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        at = next(i for i, (a, b) in enumerate(zip(wanted, got, strict=True)) if a != b)
        return difference(wanted[at], got[at], f"{path}/{at}")
    return f"at {path or '/'}: {json.dumps(wanted)[:200]} became {json.dumps(got)[:200]}"
