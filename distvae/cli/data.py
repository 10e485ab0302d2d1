"""Commands for data: examine them, and make large tables ready to train on."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.check_data import check_data
from distvae.commands.ingest import IngestOptions, ingest_tables
from distvae.commands.options import AsJson, Assignments

app = typer.Typer(rich_help_panel="Data")
data = typer.Typer(no_args_is_help=True, help="Examine data before training on it.")
app.add_typer(data, name="data", rich_help_panel=app.rich_help_panel)


@data.callback()
def data_commands() -> None:
    """Examine data before training on it."""


@command(data)
def check(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help=(
                "A folder, file or URI; or 'built-in speech', 'built-in picture', 'built-in sound'."
            ),
        ),
    ],
    assignments: Assignments = None,
    json: AsJson = False,
) -> None:
    """Print what data was recognised, what is wrong with it, and the next command. Exits with code
    1 if it differs from its published form, and with 2 if it cannot be read.
    """
    raise typer.Exit(check_data(path, assignments or [], json))


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
