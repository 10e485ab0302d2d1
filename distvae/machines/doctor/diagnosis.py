"""Diagnoses: the findings of the doctor, each with its state and its remedy, and how they print."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

State = Literal["ok", "info", "note", "bad"]
"""Fine; neither good nor bad; worth knowing; wrong."""
COLOURS = {"ok": "green", "info": "dim", "note": "yellow", "bad": "bold red"}
HERE = "here"
"""The machine that this process runs on, among those of diagnoses."""
WHERE_WIDTH = 26
"""Characters of the column of machines."""


@dataclass(frozen=True)
class Diagnosis:
    """A finding about one subject, on one machine or on several that do not differ in it."""

    state: State
    what: str
    where: str
    found: str
    remedy: str = ""


def merge_machines(diagnoses: Iterable[Diagnosis], machines: Sequence[str]) -> list[Diagnosis]:
    """Merge diagnoses that differ in nothing but the machine.

    Subjects stay in the order in which they first occur.
    """
    by_subject: dict[str, dict[Diagnosis, list[str]]] = {}
    for diagnosis in diagnoses:
        subject = by_subject.setdefault(diagnosis.what, {})
        without_machine = replace(diagnosis, where="")
        subject.setdefault(without_machine, []).append(diagnosis.where)
    merged = []
    for subject in by_subject.values():
        for diagnosis, where in subject.items():
            merged.append(replace(diagnosis, where=_join_machines(where, machines)))
    return merged


def _join_machines(where: Sequence[str], machines: Sequence[str]) -> str:
    """Return the names of machines in one string, with 'all N' for all of them."""
    names = list(where)
    if len(machines) > 1 and set(machines) <= set(where):
        others = [name for name in where if name not in machines]
        names = [f"all {len(machines)}", *others]
    return ", ".join(dict.fromkeys(names))


def print_table(diagnoses: Sequence[Diagnosis]) -> None:
    """Print a table with each remedy below its finding, and the number of each state."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True, overflow="fold")
    table.add_column("what", no_wrap=True, overflow="fold")
    table.add_column("where", max_width=WHERE_WIDTH, overflow="fold")
    table.add_column("found", overflow="fold")
    for diagnosis in diagnoses:
        colour = COLOURS[diagnosis.state]
        found = Text(diagnosis.found)
        if diagnosis.remedy:
            found.append(f"\n-> {diagnosis.remedy}", style=colour)
        state = Text(diagnosis.state, style=colour)
        table.add_row(state, Text(diagnosis.what), Text(diagnosis.where), found)
    console = Console(highlight=False)
    console.print(table)
    console.print(count_states(diagnoses))


def count_states(diagnoses: Sequence[Diagnosis]) -> str:
    """Return the number of diagnoses of each state, in words."""
    states = [diagnosis.state for diagnosis in diagnoses]
    words: dict[State, str] = {"bad": "bad", "note": "to note", "ok": "ok"}
    counts = []
    for state, word in words.items():
        if state == "ok" or state in states:
            counts.append(f"{states.count(state)} {word}")
    return ", ".join(counts)


def print_json(diagnoses: Sequence[Diagnosis]) -> None:
    """Print one JSON object for each diagnosis."""
    for diagnosis in diagnoses:
        print(json.dumps(asdict(diagnosis)))


def format_bytes(count: float) -> str:
    """Return a number of bytes in GiB or MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
