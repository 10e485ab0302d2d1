"""What `distvae denoise` and `distvae inpaint` read and where they write: one file, or a folder of
pictures. Nothing heavy is imported before the first line is printed.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distvae.commands.options import RestoreOptions
from distvae.files.kinds import PICTURES, SOUNDS
from distvae.files.output import make_folder
from distvae.files.paths import refusing_bad_paths
from distvae.files.refusal import Refusal
from distvae.train.progress import Progress

FOR_ONE = ("clean", "figure", "run")
"""Options that name a file or a folder for one picture."""


@dataclass(frozen=True)
class Place:
    """A file to restore, and where the result goes."""

    source: Path
    word: str
    """What happens to it, as names of results say it."""
    named: Path | None = None
    folder: Path | None = None
    number: str = ""
    """Which one of several it is."""

    def target(self, suffixes: tuple[str, ...]) -> Path:
        """Return the file of the result, of which these kinds can be written."""
        if self.named is not None:
            return self.named
        is_written = self.source.suffix.lower() in suffixes
        if self.folder is not None:
            return self.folder / (self.source.name + ("" if is_written else suffixes[0]))
        suffix = self.source.suffix if is_written else suffixes[0]
        return self.source.with_name(f"{self.source.stem}-{self.word}{suffix}")

    def announce(self, options: RestoreOptions, assignments: list[str]) -> None:
        """Print which file is restored and how, before what takes seconds to import."""
        keys = [assignment.partition("=")[0] for assignment in assignments]
        has_gaps = self.word == "filled" and self.source.suffix.lower() in SOUNDS
        if options.are_for_groups(keys, has_gaps) and not options.resume and self.source.is_file():
            text = f"{self.number}{self.source.name}: by groups of similar windows"
            Progress(options.style, "window").say(text)


def restore_files(
    source: Path,
    target: Path | None,
    word: str,
    options: RestoreOptions,
    restore_one: Callable[[Place], None],
) -> None:
    """Restore a file or the pictures of a folder; of a folder, those whose results are not there.

    Links in a folder are not followed, as they may lead anywhere.
    """
    if not source.is_dir():
        restore_one(Place(source, word, target))
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
            restore_one(Place(source / each, word, None, folder, place))
        except Refusal as error:
            print(f"distvae: {error}", file=sys.stderr)
            broken += 1
    if broken:
        raise SystemExit(1 if broken < len(names) else 2)


def _is_picture(entry: "os.DirEntry[str]") -> bool:
    is_kind = Path(entry.name).suffix.lower() in PICTURES and not entry.name.startswith(".")
    return is_kind and entry.is_file(follow_symlinks=False)
