"""Commands that restore pictures or a sound."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.denoise import NoiseOptions, denoise_file
from distvae.commands.inpaint import MissingOptions, inpaint_file
from distvae.commands.options import Assignments, RestoreOptions
from distvae.commands.restored_files import restore_files
from distvae.files.refusal import Refusal

app = typer.Typer(rich_help_panel="Restore pictures or a sound")

SETTING = re.compile(r"\w+\.\w+=")
"""How a setting begins that stands in the place of OUT."""
Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="A picture (PNG, TIFF, JPEG, BMP, WebP, PGM, PPM), a stack (TIFF), a folder of"
        " pictures or a sound (wav, flac, ogg, mp3).",
    ),
]
Target = Annotated[
    Path | None,
    typer.Argument(
        metavar="[OUT]",
        help="The file or folder to write; default IN-denoised or IN-filled, beside the input.",
    ),
]


def _apart(target: Path | None, assignments: list[str] | None) -> tuple[Path | None, list[str]]:
    """Return OUT and the settings, the first of which may stand in its place."""
    if target is not None and SETTING.match(str(target)):
        return None, [str(target), *(assignments or [])]
    return target, assignments or []


@command(app)
def denoise(
    source: Source,
    target: Target = None,
    assignments: Assignments = None,
    *,
    noise: NoiseOptions,
    options: RestoreOptions,
) -> None:
    """Remove noise from a picture, a stack, the pictures of a folder or a sound, without other
    data.
    """
    target, settings = _apart(target, assignments)
    if noise.std is not None and source.is_dir():
        raise Refusal(f"--std: for a picture or a stack, but {source} is a folder; omit it")
    one = partial(denoise_file, assignments=settings, options=options, noise=noise)
    restore_files(source, target, "denoised", options, one)


@command(app)
def inpaint(
    source: Source,
    target: Target = None,
    assignments: Assignments = None,
    *,
    missing: MissingOptions,
    options: RestoreOptions,
) -> None:
    """Fill in the missing pixels of a picture, a stack or the pictures of a folder, or the gaps of
    a sound, without other data. What was observed is kept, unless its noise is told.
    """
    target, settings = _apart(target, assignments)
    one = partial(inpaint_file, assignments=settings, options=options, missing_options=missing)
    restore_files(source, target, "filled", options, one)
