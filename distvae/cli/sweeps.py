"""Commands for recipes, sweeps and results."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.cite import Format, print_citation
from distvae.commands.completion import (
    complete_citable,
    complete_key,
    complete_recipe,
    complete_run,
    complete_setting,
    complete_space,
    complete_table,
)
from distvae.commands.ingest import IngestOptions, ingest_tables
from distvae.commands.options import RUN_HELP, Assignments, Recipe, TrialOptions, run_callback
from distvae.commands.recipes import print_recipes, print_spaces
from distvae.commands.report import ReportOptions, write_report
from distvae.commands.reproduce import ReproduceOptions, print_tables, reproduce_table
from distvae.commands.results import PeerOptions, ResultsOptions, build_results, evaluate_baseline
from distvae.commands.settings import print_settings
from distvae.commands.tune import TuneOptions, tune_space

app = typer.Typer()


@command(app)
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Print this recipe and all settings it resolves to.",
            autocompletion=complete_recipe,
        ),
    ] = None,
) -> None:
    """List the recipes, or show one."""
    print_recipes(name)


@command(app)
def settings(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECTION|KEY]",
            help="A section, such as model, or a key, such as model.latent; default: all.",
            autocompletion=complete_key,
        ),
    ] = None,
) -> None:
    """Explain the settings: what each means, what it may be, and its default."""
    print_settings(key)


@command(app)
def spaces() -> None:
    """List the search spaces that 'distvae tune' knows by name."""
    print_spaces()


@command(app)
def cite(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|RECIPE",
            help="Model or recipe whose papers to cite; default: this package.",
            autocompletion=complete_citable,
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="BibTeX, or a line of text.")] = "bibtex",
) -> None:
    """Print how to cite this package, or the papers behind a model."""
    print_citation(name, form)


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
    """Write one self-contained HTML page about a sweep or a run, and the same in Markdown."""
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
def results(
    rows: Annotated[
        Path, typer.Argument(help="Folder of finished rows, one JSON file each.")
    ] = Path("docs/results"),
    *,
    options: ResultsOptions,
) -> None:
    """Build the index of results, and a page and a CSV for each table beside its rows."""
    build_results(rows, options)


@command(app)
def peer(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=(
                "For speech: identity, pca-COUNT, nmf-COUNT; for a picture: nlm, wavelet, tv,"
                " bm3d, biharmonic; for a sound: zero, local, wiener, stsa."
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


@command(app)
def ingest(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Tables: .npy, .parquet, .arrow or .feather."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    *,
    options: IngestOptions,
) -> None:
    """Shuffle the rows of tables of numbers, however large, into a folder to train on with
    data.kind=rows.
    """
    ingest_tables(sources, out, options)
