"""Commands that restore one picture or sound."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.denoise import NoiseOptions, denoise_file
from distvae.commands.inpaint import MissingOptions, inpaint_file
from distvae.commands.options import Assignments, RestoreOptions

app = typer.Typer(rich_help_panel="Restore one picture or sound")

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="A picture (PNG, TIFF, JPEG, BMP, WebP, PGM, PPM) or a sound (wav, flac, ogg, mp3).",
    ),
]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")]


@command(app)
def denoise(
    source: Source,
    target: Target,
    assignments: Assignments = None,
    *,
    noise: NoiseOptions,
    options: RestoreOptions,
) -> None:
    """Remove noise from one picture or sound, from that file alone."""
    denoise_file(source, target, assignments or [], options, noise)


@command(app)
def inpaint(
    source: Source,
    target: Target,
    assignments: Assignments = None,
    *,
    missing: MissingOptions,
    options: RestoreOptions,
) -> None:
    """Fill in the missing pixels of one picture, or the gaps of one sound, by training on that file
    alone. What was observed is kept.
    """
    inpaint_file(source, target, assignments or [], options, missing)
