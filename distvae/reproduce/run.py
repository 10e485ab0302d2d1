"""Train the rows of a table as the trials of a sweep, and evaluate its baselines."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distvae.config import Config
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json
from distvae.numerics.metrics import counted
from distvae.reproduce.rows import add_baseline, add_run, read_rows
from distvae.reproduce.table import Entry, Settings, Table, find_sources, read_table
from distvae.train.progress import format_duration
from distvae.tune.folder import SWEEP_FILE
from distvae.tune.resources import TrialResources
from distvae.tune.results import Findings
from distvae.tune.space import ROW, Axis, Choice, Row, Space
from distvae.tune.sweep import DEFAULT_OPTIONS, DEFAULT_RESOURCES, SweepOptions, run_sweep
from distvae.tune.trial import Trials

ROWS = "rows"
"""The default name of the folder with the finished rows of the table."""
LISTED = 4
"""Number of rows that a message names when several are left out."""


@dataclass(frozen=True)
class Work:
    """A table with the data that it needs."""

    table: Table
    places: Mapping[str, Settings]
    """The settings with the location of each data source."""
    missing: tuple[str, ...] = ()
    """Sentences about rows that are left out because their data is missing."""

    @classmethod
    def of(cls, table: Table, root: str) -> "Work":
        """Find the data of a table below a folder. Refuse a folder without data for any row."""
        needed = dict.fromkeys(entry.data for entry in table.entries if entry.recipe and entry.data)
        places, absent = find_sources({name: table.data[name] for name in needed}, root)
        entries = tuple(entry for entry in table.entries if entry.data not in absent)
        available = replace(table, entries=entries)
        if absent and not (available.trained or available.baselines):
            raise next(iter(absent.values()))
        missing = tuple(_left_out(table, name, reason) for name, reason in absent.items())
        return cls(available, places, missing)

    def config(self, entry: Entry) -> Config:
        """Return the configuration of a row on its data."""
        return entry.config(self.places.get(entry.data))

    def space(self) -> Space:
        """Return the rows as the trials of a sweep."""
        table = self.table
        rows = {}
        for entry in table.trained:
            rows[entry.name] = Row(entry.recipe, self.config(entry), entry.published)
        first = next(iter(rows.values()))
        complete = read_table(table.name, table.scale)
        # Rows left out today are choices too, because their data may be added later.
        names = tuple(entry.name for entry in complete.trained)
        seeds = f" --seeds {table.seeds}" if table.seeds != complete.seeds else ""
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
            axes=(Axis(ROW, 0, 0, Choice(names)),),
            rows=rows,
            command=f"distvae reproduce {table.name} --scale {table.scale}{seeds}",
            split="test",
        )


def _left_out(table: Table, source: str, reason: Refusal) -> str:
    """Return a line with the reason and the rows without data, or some of them."""
    names = [entry.name for entry in table.entries if entry.data == source]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"left out: {', '.join(names[:LISTED])}{more}: {reason}"


def describe_plan(table: Table) -> Iterator[str]:
    """Yield lines about a table: its rows, its source and the estimated time."""
    models = counted(len(table.trained), "model")
    seeds = "" if table.seeds == 1 else f", {table.seeds} seeds each"
    baselines = f", {counted(len(table.baselines), 'baseline')}" if table.baselines else ""
    yield f"{table.name}: {table.about}"
    yield f"published: {table.source}"
    yield (
        f"scale {table.scale}: {models}{seeds}{baselines}; {len(table.quoted)} only quoted;"
        f" about {format_duration(table.cost())} on one core of 2 to 3 GHz"
    )


def started_rows(out: Path) -> list[str]:
    """Return the names of the rows that a folder already contains."""
    file = out / SWEEP_FILE
    return list(read_json(file).get("rows", {})) if file.is_file() else []


@dataclass(frozen=True)
class Reproduction:
    """The rows of a table, the folders for training and for finished rows, and the machines."""

    work: Work
    out: Path
    """Folder of the sweep."""
    rows: Path
    """Folder of the finished rows."""
    resources: TrialResources = DEFAULT_RESOURCES
    options: SweepOptions = DEFAULT_OPTIONS

    def run(self) -> Findings | None:
        """Train and evaluate the rows, and keep the finished rows."""
        findings = self._train() if self.work.table.trained else None
        if findings is None or not findings.signal:
            self.evaluate_baselines()
        return findings

    def _train(self) -> Findings:
        """Train the rows that are models. Keep the finished rows, even if the sweep fails.

        Nothing is kept if the folder is refused, because it then belongs to another sweep.
        """
        space = self.work.space()
        is_refused = False
        try:
            return run_sweep(space, self.out, self.options, self.resources)
        except Refusal:
            is_refused = True
            raise
        finally:
            if not is_refused:
                for name in self.keep_finished(space):
                    self._say(
                        f"{name}: not kept, the row has another scale; --resume --force replaces it"
                    )

    def keep_finished(self, space: Space) -> list[str]:
        """Keep the row of each finished run. Return the names of rows that exist at another scale,
        and leave these rows unchanged.
        """
        from distvae.train.run_folder import read_info

        table = self.work.table
        not_kept = []
        scales = {row.name: row.scale for row in read_rows(self.rows, table.name)}
        for name, entry, run in self._finished(space):
            if scales.get(name, table.scale) != table.scale and not self.options.force:
                not_kept.append(name)
                continue
            extra = _table_fields(table, entry, read_info(run)["rows"])
            add_run(self.rows, run, table.name, force=True, name=name, extra=extra)
        return not_kept

    def _finished(self, space: Space) -> Iterator[tuple[str, Entry, Path]]:
        """Yield the name, row and folder of each evaluated run."""
        from distvae.report.reading import read_sweep

        if not (self.out / SWEEP_FILE).is_file():
            return
        entries = {entry.name: entry for entry in self.work.table.trained}
        trials = Trials(space, self.out.absolute() / "trials")
        for trial in read_sweep(self.out).finished:
            result = trial.result
            entry = entries.get(str(result.values.get(ROW, "")))
            if entry is None:
                continue
            for run in trials.runs(result.number, result.values):
                seed = f"-s{run.values['train.seed']}" if space.seeds > 1 else ""
                yield f"{entry.name}{seed}", entry, run.folder

    def evaluate_baselines(self) -> None:
        """Evaluate the baselines that have no row yet, or all baselines with `force`. A baseline
        whose package is not installed is left out.
        """
        table = self.work.table
        known = {row.name for row in read_rows(self.rows, table.name)}
        for entry in table.baselines:
            if entry.name in known and not self.options.force:
                continue
            config, extra = self.work.config(entry), _table_fields(table, entry)
            try:
                add_baseline(self.rows, entry.name, entry.baseline, config, table.name, extra)
            except Refusal as error:
                self._say(f"left out: {entry.name}: {error}")
            else:
                self._say(f"{entry.name}: evaluated")

    def _say(self, line: str) -> None:
        if not self.options.quiet:
            print(line, file=sys.stderr, flush=True)


def _table_fields(
    table: Table, entry: Entry, rows: Mapping[str, int] | None = None
) -> dict[str, object]:
    """Return the fields of a row about its table. A note marks incomplete data."""
    complete = table.data[entry.data].full if entry.data else {}
    notes = []
    for split, count in complete.items():
        if rows and rows.get(split, count) < count:
            notes.append(f"{rows[split]:,} of {count:,} to {split} on")
    note = "; ".join(filter(None, [entry.note, ", ".join(notes)]))
    published = {"published": dict(entry.published), "published_spread": dict(entry.spread)}
    return {"scale": table.scale, **published, "note": note}
