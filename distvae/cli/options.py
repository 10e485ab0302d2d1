"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Style = Literal["line", "quiet", "json"]

Assignments = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as train.epochs=3.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'distvae train' made.")]
Data = Annotated[str | None, typer.Option(help="Folder of data; else $DISTVAE_DATA, else the built-in speech.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output, for programs.")]
Split = Literal["train", "val", "test", "all"]
WhichSplit = Annotated[Split, typer.Option(help="Which part of the data.")]


def style(quiet: bool, json: bool) -> Style:
    """How a command tells of its progress."""
    return "quiet" if quiet else "json" if json else "line"
