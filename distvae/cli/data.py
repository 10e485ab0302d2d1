"""Data, before anything is trained on it."""

from typing import Annotated

import typer

from distvae.cli.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Look at data before training on it.")

Path = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A folder, file or URI; or 'built-in speech', '... picture', '... sound'.",
    ),
]


@app.callback()
def data() -> None:
    """Look at data before training on it."""


@app.command()
def check(path: Path, json: AsJson = False) -> None:
    """Say what data is recognised as and what is wrong; exit code 1: not as published, 2: cannot be
    read.
    """
    from distvae.commands import survey

    raise typer.Exit(survey.check(path, json))
