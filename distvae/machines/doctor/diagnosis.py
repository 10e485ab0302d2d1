"""What the doctor says: lines that are fine, to be known, or wrong, and what to do about those."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

State = Literal["ok", "info", "note", "bad"]
"""Fine; neither good nor bad; worth knowing; wrong."""
COLOURS = {"ok": "green", "info": "dim", "note": "yellow", "bad": "bold red"}


@dataclass(frozen=True)
class Line:
    """One thing that was looked at, on one machine or on several that do not differ in it."""

    state: State
    what: str
    where: str
    found: str
    remedy: str = ""
    """What to do about it."""


def merged(lines: Iterable[Line], machines: Sequence[str]) -> list[Line]:
    """Lines that differ in nothing but the machine as one, by subject in the order in which they
    were first said.
    """
    groups: dict[str, dict[Line, list[str]]] = {}
    for line in lines:
        groups.setdefault(line.what, {}).setdefault(replace(line, where=""), []).append(line.where)
    alike = [pair for group in groups.values() for pair in group.items()]
    return [replace(line, where=_together(where, machines)) for line, where in alike]


def _together(where: Sequence[str], machines: Sequence[str]) -> str:
    everywhere = len(machines) > 1 and set(machines) <= set(where)
    others = [name for name in where if not (everywhere and name in machines)]
    return ", ".join(dict.fromkeys(([f"all {len(machines)}"] if everywhere else []) + others))


def show(lines: Sequence[Line]) -> None:
    """Print a table, each remedy below what it is for, and how many lines are of which state."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
    for name, most in (("", None), ("what", None), ("where", 26), ("found", None)):
        table.add_column(
            name, no_wrap=most is None and name != "found", max_width=most, overflow="fold"
        )
    for line in lines:
        told = Text(line.found)
        if line.remedy:
            told.append(f"\n-> {line.remedy}", style=COLOURS[line.state])
        table.add_row(
            Text(line.state, style=COLOURS[line.state]), Text(line.what), Text(line.where), told
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(count(lines))


def count(lines: Sequence[Line]) -> str:
    """How many lines are of which state."""
    states = [line.state for line in lines]
    told: dict[State, str] = {"bad": "bad", "note": "to note", "ok": "ok"}
    return ", ".join(
        f"{states.count(state)} {word}"
        for state, word in told.items()
        if state == "ok" or state in states
    )


def show_json(lines: Sequence[Line]) -> None:
    """Print one JSON object for each line."""
    for line in lines:
        print(json.dumps(asdict(line)))


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
