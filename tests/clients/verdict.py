"""What a cell came to, and whether two of them are the same.

A cell is what the matrix keeps of it: `result` (same text, different text, error), `end` (what the client was told),
and `text` where it is not the expected one. The message of an error is shown, but is no part of the comparison: it
names ports, and libraries word the same failure in several ways.
"""

import dataclasses
import fnmatch
import json
import tomllib

from wire.dialects import TEXT

SHOWN = 160


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one client made of one answer."""

    result: str
    end: str | None = None
    text: str | None = None
    detail: str | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(cls, given):
        """From what a runner said."""
        if "error" in given:
            return cls("error", detail=given["error"][:SHOWN])
        # JavaScript's JSON has null where a value is not there.
        text, end = given["made"]
        return cls("same text", end) if text == TEXT else cls("different text", end, text)

    @classmethod
    def recorded(cls, row):
        """From a row of the matrix."""
        return cls(row["result"], row.get("end"), row.get("text"), row.get("detail"))

    @property
    def failure(self):
        """The kind of error, without its words."""
        return self.detail.split(":")[0] if self.detail else None

    def __str__(self):
        if self.result == "error":
            return f"error ({self.detail})"
        text = "" if self.result == "same text" else f" {json.dumps(self.text, ensure_ascii=False)}"
        return f"{self.result}{text}, end {self.end or '-'}"


def recorded(path):
    """The cells of the matrix: by version, client and scenario."""
    rows = json.loads(path.read_text())["results"]
    return {(row["version"], row["client"], row["scenario"]): Cell.recorded(row) for row in rows}


@dataclasses.dataclass
class Expected:
    """One entry of differences.toml: cells that may differ, and why. `used` says whether any did."""

    between: str
    clients: list[str]
    scenarios: list[str]
    reason: str
    result: str | None = None
    used: bool = False

    def covers(self, between, entry, scenario, cell):
        return self.between == between and self.names(entry, scenario) and self.result in (None, cell.result)

    def names(self, entry, scenario):
        """Whether the entry point and the scenario (or recording) are among those meant."""
        return any(fnmatch.fnmatchcase(entry.key, pattern) for pattern in self.clients) and any(
            fnmatch.fnmatchcase(scenario, pattern) for pattern in self.scenarios
        )


def expected(path):
    """The differences that are expected."""
    with path.open("rb") as file:
        return [Expected(**entry) for entry in tomllib.load(file).get("difference", [])]
