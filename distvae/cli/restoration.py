"""`distvae denoise` and `distvae inpaint`: which files they restore, and where the results go.

Nothing heavy is imported before the first line is printed; `restore.py` does the work.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.options import START, Assignments, command
from distvae.cli.restore_options import (
    FOR_ONE,
    MissingOptions,
    NoiseOptions,
    Place,
    RestoreOptions,
)
from distvae.files.paths import PICTURES, SOUNDS, make_folder, refusing_bad_paths
from distvae.files.refusal import Refusal
from distvae.train.progress import Progress

app = typer.Typer(rich_help_panel="Restore pictures or a sound")

SETTING = re.compile(r"\w+\.\w+=")
"""The begin of a setting that stands in the place of OUT."""
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


@command(app, "denoise noisy.png clean.png", START)
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

    def restore_one(place: Place, settings: list[str]) -> None:
        from distvae.cli.restore import denoise_file

        denoise_file(place, settings, options, noise)

    if noise.std is not None and source.is_dir():
        raise Refusal(f"--std: for a picture or a stack, but {source} is a folder; omit it")
    restore_files(source, target, assignments or [], "denoised", options, restore_one)


@command(app, "inpaint scratched.png whole.png --mask scratches.png", START)
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

    def restore_one(place: Place, settings: list[str]) -> None:
        from distvae.cli.restore import inpaint_file

        inpaint_file(place, settings, options, missing)

    restore_files(source, target, assignments or [], "filled", options, restore_one)


def restore_files(
    source: Path,
    target: Path | None,
    assignments: list[str],
    word: str,
    options: RestoreOptions,
    restore_one: Callable[[Place, list[str]], None],
) -> None:
    """Restore a file, or each picture of a folder that has no result yet. Links in a folder are not
    followed, as they may lead anywhere.
    """
    if target is not None and SETTING.match(str(target)):
        target, assignments = None, [str(target), *assignments]
    keys = [assignment.partition("=")[0] for assignment in assignments]

    def announce_and_restore(place: Place) -> None:
        has_gaps = word == "filled" and place.source.suffix.lower() in SOUNDS
        by_groups = options.are_for_groups(keys, has_gaps) and not options.resume
        if by_groups and place.source.is_file():
            text = f"{place.number}{place.source.name}: by groups of similar windows"
            Progress(options.style, "window").say(text)
        restore_one(place, assignments)

    if not source.is_dir():
        announce_and_restore(Place(source, word, target))
        return
    for name in FOR_ONE:
        if getattr(options, name) is not None:
            raise Refusal(f"--{name}: for one picture, but {source} is a folder; omit it")
    with refusing_bad_paths(str(source), "a folder that can be read expected"):
        names = sorted(each.name for each in os.scandir(source) if _is_picture(each))
        whole = source.resolve()
    if not names:
        raise Refusal(f"{source}: holds no pictures; {', '.join(PICTURES)} expected")
    folder = target or (source if source.name else whole).with_name(f"{whole.name}-{word}")
    if folder.resolve() == whole:
        raise Refusal(f"{folder}: this folder is read; another name expected")
    make_folder(folder)
    there = {each.name for each in folder.iterdir()}
    waiting = [each for each in names if options.force or there.isdisjoint({each, f"{each}.png"})]
    if len(waiting) < len(names):
        done = f"{len(names) - len(waiting)} of {len(names)} results are there already"
        Progress(options.style, "window").say(f"{folder}: {done}; --force replaces them")
    broken = 0
    for number, each in enumerate(waiting, 1):
        try:
            place = f"{number} of {len(waiting)}: "
            announce_and_restore(Place(source / each, word, None, folder, place))
        except Refusal as error:
            print(f"distvae: {error}", file=sys.stderr)
            broken += 1
    if broken:
        raise SystemExit(1 if broken < len(names) else 2)


def _is_picture(entry: "os.DirEntry[str]") -> bool:
    is_kind = Path(entry.name).suffix.lower() in PICTURES and not entry.name.startswith(".")
    return is_kind and entry.is_file(follow_symlinks=False)
