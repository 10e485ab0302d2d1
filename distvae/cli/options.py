"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Style = Literal["line", "quiet", "json"]


def recorded(run: Path | None) -> Path | None:
    """Return the folder of a run that was named on the command line."""
    from distvae.commands.jobs import run_folder

    return None if run is None else run_folder(run)


Assignments = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as train.epochs=3.")
]
NAMED = "Its folder, its name or id in MLflow, or best:METRIC@SWEEP."
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", callback=recorded, help=NAMED)]
Data = Annotated[
    str | None,
    typer.Option(help="Where the data is; else $DISTVAE_DATA, and for speech the built-in."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output, for programs.")
]
GPUsPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0,
        help=(
            "GPUs of each of these processes; else one, if Ray has any. 0: none, 0.25: four share"
            " one."
        ),
    ),
]
Split = Literal["train", "val", "test", "all"]
WhichSplit = Annotated[Split, typer.Option(help="Which part of the data.")]


def style(quiet: bool, json: bool) -> Style:
    """How a command tells of its progress."""
    return "quiet" if quiet else "json" if json else "line"
