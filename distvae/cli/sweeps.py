"""Commands that compare models: sweeps, reports, published tables and baselines."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.completion import (
    complete_run,
    complete_setting,
    complete_space,
    complete_table,
)
from distvae.commands.options import RUN_HELP, Assignments, Recipe, TrialOptions, run_callback
from distvae.commands.peer import PeerOptions, evaluate_baseline
from distvae.commands.report import ReportOptions, write_report
from distvae.commands.reproduce import ReproduceOptions, print_tables, reproduce_table
from distvae.commands.tune import TuneOptions, tune_space

app = typer.Typer(rich_help_panel="Compare models")


@command(app)
def tune(
    space: Annotated[
        str,
        typer.Argument(
            metavar="SPACE|FILE.yaml", help="See 'distvae spaces'.", autocompletion=complete_space
        ),
    ],
    assignments: Assignments = None,
    *,
    options: TuneOptions,
    trial_options: TrialOptions,
) -> None:
    """Sweep a search space for quality against sparsity; every trial is recorded in MLflow."""
    tune_space(space, assignments or [], options, trial_options)


@command(app)
def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SWEEP|RUN",
            callback=run_callback,
            help=RUN_HELP,
            autocompletion=complete_run,
        ),
    ],
    *,
    options: ReportOptions,
) -> None:
    """Write one self-contained HTML page about a sweep or a run."""
    write_report(source, options)


@command(app)
def reproduce(
    table: Annotated[
        str | None,
        typer.Argument(
            help="Name of a table; without one, the tables are listed.",
            autocompletion=complete_table,
        ),
    ] = None,
    *,
    options: ReproduceOptions,
    trial_options: TrialOptions,
) -> None:
    """Reproduce a published table: results obtained here beside the published ones."""
    if table is None:
        print_tables()
        return
    raise SystemExit(reproduce_table(table, options, trial_options))


@command(app)
def peer(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=(
                "For speech: identity, pca-COUNT, nmf-COUNT; for a picture: nlm, wavelet, tv,"
                " bm3d, biharmonic; for a sound: zero, local, wiener, stsa, linear, ar."
            ),
        ),
    ],
    recipe: Recipe,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings to change, such as data.noise=25.",
            autocompletion=complete_setting,
        ),
    ] = None,
    *,
    options: PeerOptions,
) -> None:
    """Evaluate a baseline on the data of a recipe, in the same way as the models."""
    evaluate_baseline(name, recipe, assignments or [], options)
