"""Trials as a table: while they run, and ranked at the end."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from distvae.train.progress import format_duration
from distvae.tune.results import Findings, Result
from distvae.tune.space import Space

if TYPE_CHECKING:
    from rich.table import Table

BESIDE = ("effective_atoms", "live_atoms")
"""What says more of sparsity than one figure can."""
WIDE = 200  # no figure of the last table is cut off; a narrow terminal wraps it
STOPPED = "stopped; the same command with --resume goes on"
TEXT = ("what varies", "state", "")


def progress(results: Iterable[Result], space: Space) -> "Table":
    """The trials of a sweep under way."""
    metrics = list(space.metrics)
    table = _table(["trial", "what varies", "epoch", "bound", *metrics, "time", "state"])
    for result in sorted(results, key=lambda result: result.number):
        epochs = space.config(result.values).train.epochs
        state = "judging" if result.state == "training" and result.epoch == epochs else result.state
        reached = [f"{result.number}/{space.trials}", result.label, f"{result.epoch}/{epochs}"]
        bound = "" if result.bound is None else f"{result.bound:.1f}"
        table.add_row(
            *reached,
            bound,
            *_figures(result, metrics),
            format_duration(result.seconds),
            result.cause or state,
        )
    return table


def show(findings: Findings) -> None:
    """Print what a sweep found: quality against sparsity, the best first, and where to look
    further.
    """
    from rich.console import Console

    finished = [result for result in findings.results if result.state == "finished"]
    if finished:
        Console(width=WIDE).print(ranking(finished, list(findings.metrics)))
        print(
            "* no other trial is better in one of the figures it is ranked by and no worse in the"
            " others"
        )
    for result in findings.results:
        if result.state != "finished":
            print(
                f"trial {result.number} {result.state}: {result.label}"
                + (f": {result.cause}" if result.cause else "")
            )
    if findings.cut_short:
        print(STOPPED)
    print(f"\nfolder:    {findings.folder}\nin MLflow: {findings.look}")


def ranking(finished: Sequence[Result], metrics: Sequence[str]) -> "Table":
    """Finished trials in the order given."""
    columns = [
        *metrics,
        *(name for name in BESIDE if name not in metrics and name in finished[0].figures),
    ]
    table = _table(["trial", "what varies", *columns, "time", ""])
    for result in finished:
        mark = "*" if result.unbeaten else ""
        table.add_row(
            str(result.number),
            result.label,
            *_figures(result, columns),
            format_duration(result.seconds),
            mark,
        )
    return table


def _table(columns: Iterable[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in columns:
        table.add_column(name, justify="left" if name in TEXT else "right", no_wrap=True)
    return table


def _figures(result: Result, names: Iterable[str]) -> list[str]:
    return [f"{result.figures[name]:.3f}" if name in result.figures else "" for name in names]
