"""The command that examines data."""

from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.check_data import check_data
from distvae.commands.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Examine data before training on it.")

Path = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A folder, file or URI; or 'built-in speech', 'built-in picture', 'built-in sound'.",
    ),
]


@app.callback()
def data() -> None:
    """Examine data before training on it."""


@command(app)
def check(path: Path, json: AsJson = False) -> None:
    """Print what data was recognised and what is wrong with it. Exits with code 1 if it differs
    from its published form, and with 2 if it cannot be read.
    """
    raise typer.Exit(check_data(path, json))
