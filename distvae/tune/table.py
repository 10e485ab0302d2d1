"""Tables of trials: while a sweep runs, and ranked at its end."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from distvae.numerics.numbers import in_column
from distvae.train.progress import format_duration
from distvae.tune.results import Findings, Left, Result
from distvae.tune.space import Space

if TYPE_CHECKING:
    from rich.table import Table

SPARSITY_COLUMNS = ("effective_atoms", "live_atoms")
"""Figures that are shown even if trials are not ranked by them."""
WIDTH = 200
"""Characters of the ranking, so that no figure is cut off; a narrow terminal wraps it."""
STOPPED = "stopped; the same command with --resume continues"
LAST_WORDS: Mapping[Left, str] = {
    "trials": STOPPED,
    "pictures": (
        "stopped; all trials have ended, and the same command with --resume draws the pictures of"
        " the report that are missing"
    ),
    "nothing": "stopped; all trials have ended, and nothing is missing",
}
"""The last line of a sweep that was asked to stop, by what is left of it."""
ORIGIN = "continues"
"""The heading of the column that says which trial a trial continues."""
TEXT_COLUMNS = ("what varies", ORIGIN, "state", "")


def progress_table(results: Iterable[Result], space: Space) -> "Table":
    """Return a table of the trials of a running sweep."""
    metrics = list(space.metrics)
    table = _empty_table(["trial", "what varies", "epoch", "bound", *metrics, "time", "state"])
    for result in sorted(results, key=lambda result: result.number):
        epochs = space.epochs(result.values)
        training_done = result.state == "training" and result.epoch == epochs
        state = "evaluating" if training_done else result.state
        table.add_row(
            f"{result.number}/{space.count}",
            result.label,
            f"{result.epoch}/{epochs}",
            "" if result.bound is None else f"{result.bound:.1f}",
            *_figures(result, metrics),
            format_duration(result.seconds),
            result.cause or state,
        )
    return table


def print_findings(findings: Findings) -> None:
    """Print the ranking, the trials that did not finish, and where to look further."""
    from rich.console import Console

    finished = [result for result in findings.results if result.state == "finished"]
    if finished:
        console = Console(width=WIDTH, markup=False, emoji=False)
        console.print(ranking_table(finished, list(findings.metrics)))
        print(
            "* no other trial is better in one of the figures it is ranked by and no worse in the"
            " others"
        )
    for result in findings.results:
        if result.state != "finished":
            cause = f": {result.cause}" if result.cause else ""
            print(f"trial {result.number} {result.state}: {result.label}{cause}")
    if findings.interrupted:
        print(LAST_WORDS[findings.left])
    print(f"\nfolder:    {findings.folder}\nin MLflow: {findings.look}")


def ranking_table(finished: Sequence[Result], metrics: Sequence[str]) -> "Table":
    """Return a table of finished trials, in the order given."""
    columns = list(metrics)
    for name in SPARSITY_COLUMNS:
        if name not in metrics and name in finished[0].figures:
            columns.append(name)
    origin = [ORIGIN] * any(result.origin for result in finished)
    table = _empty_table(["trial", "what varies", *origin, *columns, "time", ""])
    for result in finished:
        table.add_row(
            str(result.number),
            result.label,
            *[result.origin for _ in origin],
            *_figures(result, columns),
            format_duration(result.seconds),
            "*" if result.unbeaten else "",
        )
    return table


def html_table(table: "Table") -> str:
    """Return a table as HTML, as a terminal would show it."""
    from rich.console import Console

    console = Console(
        width=WIDTH,
        record=True,
        file=io.StringIO(),
        force_jupyter=False,
        markup=False,
        emoji=False,
    )
    console.print(table)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _empty_table(columns: Iterable[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in columns:
        is_text = name in TEXT_COLUMNS
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    return table


def _figures(result: Result, names: Iterable[str]) -> list[str]:
    return [in_column(result.figures[name]) if name in result.figures else "" for name in names]
