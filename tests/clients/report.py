"""Compares the cells of a run and says it in Markdown: a table per client, then every cell that differs."""

import dataclasses

FILE, THROUGH, SUCCESS = "direct differs from the file", "through differs from direct", "a cut answer counts as whole"


@dataclasses.dataclass(frozen=True)
class Difference:
    """A cell that is not what it is compared with; `reason` is that of differences.toml, if it has one."""

    kind: str
    entry: object
    scenario: str
    wanted: object
    got: object
    reason: str | None


class Report:
    """What a run came to. `whole`: everything was run, so that an explanation nobody needed is an error, too."""

    def __init__(self, cells, recorded, expected, whole):
        self.cells, self.recorded, self.expected = cells, recorded, expected
        self.differences, self.compared = [], 0
        self.reworded = []
        for (entry, scenario, way), cell in cells.items():
            if way == "through":
                self.look(entry, scenario, cells[entry, scenario, "direct"], cell)
        self.unexplained = [d for d in self.differences if not d.reason]
        self.unused = [e for e in expected if whole and e.between in ("file", "direct", "success") and not e.used]
        self.unexplained += self.unused

    def look(self, entry, scenario, direct, through):
        """Compares one cell in every respect."""
        row = self.recorded.get((entry.version, entry.row, scenario))
        if row is not None:
            self.compared += 1
            if row != direct:
                self.add(FILE, "file", entry, scenario, row, direct)
        if direct != through:
            self.add(THROUGH, "direct", entry, scenario, direct, through)
        elif direct.failure != through.failure:
            self.reworded.append((entry, scenario, direct, through))
        if scenario.startswith("cut-") and success(through):
            self.add(SUCCESS, "success", entry, scenario, direct, through)

    def add(self, kind, between, entry, scenario, wanted, got):
        reasons = [e for e in self.expected if e.covers(between, entry, scenario, got)]
        for reason in reasons:
            reason.used = True
        reason = reasons[0].reason if reasons else None
        self.differences.append(Difference(kind, entry, scenario, wanted, got, reason))

    def text(self):
        """The whole of it."""
        parts = [self.table(), self.counts()]
        for kind in (FILE, THROUGH, SUCCESS):
            found = [d for d in self.differences if d.kind == kind]
            if found:
                parts.append(section(f"{kind.capitalize()}: {len(found)}", map(said, found)))
        if self.reworded:
            title = f"The same result, another error: {len(self.reworded)}"
            parts.append(section(title, map(said_anew, self.reworded)))
        if self.unused:
            unused = [(f"{e.clients} {e.scenarios}: {e.reason}", "") for e in self.unused]
            parts.append(section("No longer needed in differences.toml", unused))
        return "\n".join(parts)

    def table(self):
        """Counts per client."""
        lines = [
            "| client | cells in the file | direct as in the file | cells both ways | through as direct |",
            "|---|--:|--:|--:|--:|",
        ]
        for entry in dict.fromkeys(entry for entry, _, _ in self.cells):
            scenarios = [s for e, s, way in self.cells if e == entry and way == "direct"]
            rows = [s for s in scenarios if (entry.version, entry.row, s) in self.recorded]
            differing = [(d.kind, d.scenario) for d in self.differences if d.entry == entry]
            as_file = sum((FILE, s) not in differing for s in rows)
            as_direct = sum((THROUGH, s) not in differing for s in scenarios)
            lines.append(f"| {entry.key} | {len(rows)} | {as_file} | {len(scenarios)} | {as_direct} |")
        return "\n".join(lines)

    def counts(self):
        both = len(self.cells) // 2
        counted = [f"{kind}: {sum(d.kind == kind for d in self.differences)}" for kind in (FILE, THROUGH, SUCCESS)]
        said = [f"{both} cells both ways", f"in the file: {self.compared}", *counted]
        return "\n" + ", ".join(said) + f". Unexplained: {len(self.unexplained)}."


def success(cell):
    """Whether the client takes the answer for whole: it raised nothing, nor said that the connection failed."""
    return cell.result != "error" and not (cell.end or "").startswith("err ")


def said(difference):
    """A difference without its scenario, and its scenario."""
    reason = difference.reason or "**NOT EXPLAINED**"
    return f"{difference.entry.key}: {difference.wanted} -> {difference.got}. {reason}", difference.scenario


def said_anew(found):
    """The kinds of error of a cell that is the same otherwise, and its scenario."""
    entry, scenario, direct, through = found
    return f"{entry.key}: {direct.failure} -> {through.failure}", scenario


def section(title, items):
    """A list under a title: what several scenarios have in common is one item."""
    scenarios = {}
    for what, scenario in items:
        scenarios.setdefault(what, []).append(scenario)
    listed = [f"- {what}" + (f" ({', '.join(found)})" if found != [""] else "") for what, found in scenarios.items()]
    return f"\n## {title}\n\n" + "\n".join(listed)
