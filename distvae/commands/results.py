"""`distvae results` and `distvae peer`: the pages of results, and the baselines among them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.commands.configuration import configure
from distvae.commands.options import AsJson, Data, Force, progress_style, run_callback


@dataclass(frozen=True)
class ResultsOptions:
    """The options of `distvae results`."""

    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File for the index; default: print everything."),
    ] = None
    add: Annotated[
        Path | None,
        typer.Option(callback=run_callback, help="First add an evaluated run as a row of --table."),
    ] = None
    table: Annotated[str, typer.Option(help="The table that a new row belongs to.")] = "runs"
    force: Force = False


def build_results(rows: Path, options: ResultsOptions) -> None:
    """Add a run to the rows of results if wanted, and build their pages."""
    from distvae.report.results.build import build, check_index
    from distvae.report.results.record import add_run

    if options.out is not None:
        check_index(options.out, options.force)
    if options.add is not None:
        add_run(rows, options.add, options.table, force=options.force)
    build(rows, options.out)


@dataclass(frozen=True)
class PeerOptions:
    """The options of `distvae peer`."""

    data: Data = None
    row: Annotated[
        Path | None,
        typer.Option(metavar="TABLE/ROW.json", help="Keep the scores as a row of results."),
    ] = None
    force: Force = False
    json: AsJson = False


def evaluate_baseline(name: str, recipe: str, assignments: list[str], options: PeerOptions) -> None:
    """Evaluate a baseline on the data of a recipe, and print its scores."""
    from distvae.commands.evaluate import print_scores
    from distvae.report.results.record import judge_baseline

    config = configure(recipe, assignments, options.data)
    scores = judge_baseline(name, config, options.row, options.force)
    print_scores(scores, progress_style(quiet=False, json=options.json))
