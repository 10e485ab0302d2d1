"""Obtaining a table: its models are the trials of a sweep, its methods of comparison are judged
beside it.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distvae.files.output import make_folder
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json
from distvae.report.numbers import counted
from distvae.report.results.record import add_run, judge_baseline
from distvae.report.results.rows import find_row
from distvae.reproduce.finding import search
from distvae.reproduce.table import Entry, Settings, Table, read_table
from distvae.train.progress import format_duration
from distvae.tune.axes import Axis, Choice
from distvae.tune.resources import TrialResources
from distvae.tune.results import Findings
from distvae.tune.space import ROW, Row, Space
from distvae.tune.sweep import DEFAULT_RESOURCES, run_sweep
from distvae.tune.sweep_file import SWEEP_FILE
from distvae.tune.trial import Trials

KEPT = "rows"
"""The folder of a table's folder that keeps a file for each finished row."""
NAMED = 4  # rows of those that are left out


@dataclass(frozen=True)
class Work:
    """A table with the data that it needs."""

    table: Table
    places: dict[str, Settings]
    missing: tuple[str, ...] = ()
    """Which rows are left out and why, in words."""

    @classmethod
    def of(cls, table: Table, root: str) -> "Work":
        """The rows whose data is found below a folder; refused where there are none."""
        needed = dict.fromkeys(entry.data for entry in table.entries if entry.recipe and entry.data)
        places, absent = search({name: table.data[name] for name in needed}, root)
        here = replace(
            table, entries=tuple(entry for entry in table.entries if entry.data not in absent)
        )
        if absent and not (here.trained or here.peers):
            raise next(iter(absent.values()))
        return cls(here, places, tuple(_left_out(table, name, why) for name, why in absent.items()))

    def row(self, entry: Entry) -> Row:
        """What is trained for a row."""
        return Row(entry.recipe, entry.config(self.places.get(entry.data)), entry.published)

    def space(self) -> Space:
        """The rows as trials of a sweep."""
        table, rows = self.table, {entry.name: self.row(entry) for entry in self.table.trained}
        first = next(iter(rows.values()))
        whole = read_table(table.name, table.scale)
        every = tuple(entry.name for entry in whole.trained)
        seeds = f" --seeds {table.seeds}" if table.seeds != whole.seeds else ""
        return Space(
            name=table.name,
            about=table.about,
            recipe=table.name,
            base=first.config,
            metrics=table.metrics,
            trials=len(rows),
            concurrent=None,
            seed=0,
            search="grid",
            seeds=table.seeds,
            scheduler="none",
            axes=(Axis(ROW, 0, 0, Choice(every)),),  # those that are left out may come later
            rows=rows,
            command=f"distvae reproduce {table.name} --scale {table.scale}{seeds}",
            split="test",
        )


def _left_out(table: Table, source: str, why: Refusal) -> str:
    """A line that names the rows, a few of many."""
    names = [entry.name for entry in table.entries if entry.data == source]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"left out: {', '.join(names[:NAMED])}{more}: {why}"


def planned(table: Table) -> Iterator[str]:
    """What a table takes, in words."""
    obtained, cost = len(table.trained), table.cost()
    seeds = "" if table.seeds == 1 else f", {table.seeds} seeds each"
    beside = f", {counted(len(table.peers), 'method')} of comparison" if table.peers else ""
    yield f"{table.name}: {table.about}"
    yield f"published: {table.source}"
    yield (
        f"scale {table.scale}: {counted(obtained, 'model')}{seeds}{beside}; only quoted:"
        f" {len(table.quoted)}; about {format_duration(cost)} of one core, by epochs measured"
        " on one of 2 to 3 GHz"
    )


def begun(out: Path) -> list[str]:
    """The rows that a folder has, for `--only` adds to them when it goes on."""
    file = out / SWEEP_FILE
    return list(read_json(file).get("rows", {})) if file.is_file() else []


def reproduce(
    work: Work,
    out: Path,
    rows: Path | None,
    concurrent: int | None = None,
    quiet: bool = False,
    force: bool = False,
    resume: bool = False,
    resources: TrialResources = DEFAULT_RESOURCES,
) -> Findings | None:
    """Obtain the rows of a table into a folder, and keep a file for each that is finished."""
    folder = rows or out / KEPT
    findings = (
        _trained(work, out, folder, concurrent, quiet, force, resume, resources)
        if work.table.trained
        else None
    )
    if findings is None or not findings.signal:
        judge_peers(work, folder, force, quiet)
    return findings


def _trained(
    work: Work,
    out: Path,
    folder: Path,
    concurrent: int | None,
    quiet: bool,
    force: bool,
    resume: bool,
    resources: TrialResources,
) -> Findings:
    """Run the rows that are models, and keep what is finished however that ends, unless the folder
    is refused.
    """
    space, refused = work.space(), False
    try:
        return run_sweep(
            space, out, None, None, concurrent, "", quiet, force, resume, resources=resources
        )
    except Refusal:
        refused = True
        raise
    finally:
        for name in () if refused else keep(work, space, out, folder, force):
            _say(f"{name}: not kept, the row of another scale is there; --force replaces it", quiet)


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)


def judge_peers(work: Work, folder: Path, force: bool, quiet: bool) -> None:
    """Judge the methods of comparison that were not judged before."""
    for entry in work.table.peers:
        if _judged(work, entry, folder, force):
            _say(f"{entry.name}: judged", quiet)


def _judged(work: Work, entry: Entry, folder: Path, force: bool) -> bool:
    """Judge a method of comparison, unless that was done."""
    file = folder / work.table.name / f"{entry.name}.json"
    if file.exists() and not force:
        return False
    make_folder(file.parent)
    judge_baseline(
        entry.peer,
        entry.config(work.places.get(entry.data)),
        file,
        True,
        _beside(work.table, entry),
    )
    return True


def keep(work: Work, space: Space, out: Path, folder: Path, force: bool) -> Iterator[str]:
    """Keep a file for each run that is finished; those that stay as they are because another scale
    made them.
    """
    from distvae.train.run import read_info

    for name, entry, run in _finished(work, space, out):
        kept = find_row(folder, work.table.name, name)
        if kept and kept.scale != work.table.scale and not force:
            yield name
            continue
        beside = _beside(work.table, entry, read_info(run)["rows"])
        add_run(folder, run, work.table.name, force=True, name=name, extra=beside)


def _finished(work: Work, space: Space, out: Path) -> Iterator[tuple[str, Entry, Path]]:
    """The runs that were judged, each with a name and its row."""
    from distvae.report.reading import read_sweep

    if not (out / SWEEP_FILE).is_file():
        return
    entries, trials = (
        {entry.name: entry for entry in work.table.trained},
        Trials(space, out.absolute() / "trials"),
    )
    for trial in read_sweep(out).finished:
        if entry := entries.get(trial.result.values.get(ROW, "")):
            for attempt in trials.runs(trial.result.number, trial.result.values):
                seed = f"-s{attempt.values['train.seed']}" if space.seeds > 1 else ""
                yield entry.name + seed, entry, attempt.folder


def _beside(table: Table, entry: Entry, rows: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What a row's file says of the table, and of data that is less than the published."""
    full = table.data[entry.data].full if entry.data else {}
    less = [
        f"{rows[s]:,} of {n:,} to {s} on" for s, n in full.items() if rows and rows.get(s, n) < n
    ]
    note = "; ".join(filter(None, [entry.note, ", ".join(less)]))
    return {"scale": table.scale, "published": dict(entry.published), "note": note}
