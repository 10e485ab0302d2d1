"""`distvae runs`: list runs, sweeps and trials from MLflow."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distvae.commands.completion import complete_metric
from distvae.commands.options import AsJson
from distvae.files.plain import finite
from distvae.files.refusal import Refusal, nearest

if TYPE_CHECKING:
    from distvae.track.records import Record

FOLDED = 100
"""Characters after which a name is folded."""


@dataclass(frozen=True)
class RunsOptions:
    """The options of `distvae runs`."""

    of: Annotated[
        str | None,
        typer.Option(metavar="SWEEP", help="List the trials of a sweep: a name, id or folder."),
    ] = None
    kind: Annotated[
        Literal["run", "sweep", "trial"] | None,
        typer.Option(help="List only these; default: runs and sweeps."),
    ] = None
    where: Annotated[
        str,
        typer.Option(
            metavar="FILTER",
            help=(
                "A filter of MLflow; for trials, for instance:"
                """ --kind trial --where "metrics.hoyer > 0.4 and params.model.kind = 'sdm'"."""
            ),
        ),
    ] = ""
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Sort by a metric: largest first, or best first if --of SWEEP ranks by it.",
            autocompletion=complete_metric,
        ),
    ] = None
    ascending: Annotated[
        bool | None,
        typer.Option("--ascending/--descending", help="With --sort: smallest or largest first."),
    ] = None
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Show this metric; may be repeated.", autocompletion=complete_metric),
    ] = None
    limit: Annotated[int, typer.Option(min=1, help="Number of lines.")] = 30
    json: AsJson = False


def list_runs(root: Path, options: RunsOptions) -> None:
    """Print runs and sweeps, or the trials of one sweep, the latest or the best first."""
    from distvae.track import Store
    from distvae.track.records import find_sweep, list_records, sweep_metrics

    _refuse_without_effect(options)
    store = Store.find(root)
    matching, sweeps = list_records(store, options.where), list_records(store, kinds=["sweep"])
    shown, ranked = list(options.metric or []), dict[str, str]()
    if options.of is not None:
        sweep = find_sweep(options.of, sweeps)
        found = [record for record in matching if record.parent == sweep.id]
        ranked = sweep_metrics(sweep)
        shown = shown or list(ranked)
    else:
        kinds = [options.kind] if options.kind else ["run", "sweep"]
        found = [record for record in matching if record.kind in kinds]
        shown = shown or ["val_bound"]
    _refuse_unknown_metrics(options, found)
    if options.sort:
        shown = list(dict.fromkeys([options.sort, *shown]))
        smallest_is_best = ranked.get(options.sort) == "min"
        ascending = smallest_is_best if options.ascending is None else options.ascending
        found = _sorted_by(found, options.sort, ascending)
    if options.json:
        for record in found[: options.limit]:
            print(json.dumps(finite(asdict(record)), default=str))
        return
    _print_table(found[: options.limit], {sweep.id: sweep.name for sweep in sweeps}, shown)
    if len(found) > options.limit:
        print(f"{len(found) - options.limit} more; --limit shows them")
    if options.of is None and matching and not found:
        print(_where_they_are(matching))


def _where_they_are(matching: "Sequence[Record]") -> str:
    """Say how to list records that are of other kinds than those asked for."""
    from distvae.numerics.numbers import counted, listed

    kinds = [record.kind for record in matching]
    counts = [f"{counted(kinds.count(kind), kind)} (--kind {kind})" for kind in sorted({*kinds})]
    return f"none of these, but {listed(counts)}"


def _refuse_without_effect(options: RunsOptions) -> None:
    if options.of is not None and options.kind not in (None, "trial"):
        raise Refusal(f"--kind {options.kind}: --of lists the trials of a sweep; omit one")
    if options.ascending is not None and not options.sort:
        order = "--ascending" if options.ascending else "--descending"
        raise Refusal(f"{order}: without --sort; --sort METRIC expected, or omit it")


def _refuse_unknown_metrics(options: RunsOptions, found: "Sequence[Record]") -> None:
    """Refuse --metric and --sort by a metric that none of the listed runs has."""
    known = {name for record in found for name in record.metrics}
    asked = [*(options.metric or []), *([options.sort] if options.sort else [])]
    for name in asked:
        if found and name not in known:
            hint = "these have no metrics; --of SWEEP lists its trials"
            if known:
                hint = nearest(name, known)
            raise Refusal(f"{name}: none of these has a metric of that name; {hint}")


def _sorted_by(found: "Sequence[Record]", metric: str, ascending: bool) -> "list[Record]":
    """Return the records that have a metric, sorted by it."""
    having = [record for record in found if metric in record.metrics]
    return sorted(having, key=lambda record: record.metrics[metric], reverse=not ascending)


def _print_table(
    found: "Sequence[Record]", sweeps: Mapping[str, str], metrics: Sequence[str]
) -> None:
    """Print a line for each record; `sweeps` holds the names of sweeps by id."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("id", "kind", "name", "of", "started", "time", "state", *metrics):
        is_number = name in metrics or name == "time"
        folds = name in ("name", "of")
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=not folds,
            overflow="fold",
            max_width=FOLDED if folds else None,
        )
    for record in found:
        table.add_row(*_cells(record, sweeps, metrics))
    console = Console(width=sys.maxsize, markup=False, emoji=False)
    console.width = console.measure(table).maximum  # not that of the terminal: nothing is cut off
    console.print(table)


def _cells(record: "Record", sweeps: Mapping[str, str], metrics: Sequence[str]) -> list[str]:
    from distvae.numerics.numbers import in_column
    from distvae.track.records import SHORT
    from distvae.train.progress import format_duration

    parent = sweeps.get(record.parent or "", record.experiment)  # a trial belongs to its sweep
    begun = datetime.fromtimestamp(record.began).strftime("%Y-%m-%d %H:%M")
    duration = "" if record.seconds is None else format_duration(record.seconds)
    cells = [record.id[:SHORT], record.kind, record.name, parent, begun, duration, record.status]
    values = record.metrics
    figures = [in_column(values[name]) if name in values else "" for name in metrics]
    return [*cells, *figures]
