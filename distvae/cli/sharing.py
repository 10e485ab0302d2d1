"""Commands that give a trained model to others, and fetch one."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.options import Force, RunFolder
from distvae.commands.push import load_model, push_run

app = typer.Typer(rich_help_panel="Share models")


@command(app)
def push(
    run: RunFolder,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DEST", help="A new folder, s3://bucket/NAME, or hf://OWNER/NAME for the hub."
        ),
    ],
    force: Force = False,
) -> None:
    """Write a trained model with a card to a folder, an object store or the Hugging Face hub."""
    push_run(run, destination, force)


@command(app)
def load(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Where 'distvae push' wrote a model.")
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[OUT]", help="The folder to make; default: one in the cache."),
    ] = None,
    force: Force = False,
) -> None:
    """Copy a pushed model here, verify its files, and print its folder."""
    load_model(source, folder, force)
