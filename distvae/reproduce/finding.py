"""Find the data of a table in a folder."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.reproduce.table import Settings, Source


def locate(name: str, source: Source, root: str) -> Settings:
    """Return the settings for a source of data: its path and the settings of its layout.

    The data may lie in the folder or in a subfolder. Raise `Refusal` if it does not.
    """
    place = root or os.environ.get("DISTVAE_DATA", "")
    wanted = f"{name} ({source.about})"
    if not place:
        raise Refusal(
            f"--data: not given, and $DISTVAE_DATA is not set; a folder with {wanted} expected"
        )
    folder = Path(place)
    if not folder.is_dir():
        raise Refusal(f"--data: {place}: no such folder; a folder with {wanted} expected")
    for pattern, settings in source.find.items():
        for found in _matches(folder, pattern):
            wants_folder = source.folder and found.is_file() and found.suffix != ".npz"
            path = found.parent if wants_folder else found
            return {"data.path": str(path.absolute()), **settings}
    patterns = " or ".join(source.find)
    raise Refusal(f"{place}: holds no {wanted}: {patterns} expected in it or in a folder of it")


def _matches(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files and folders that match a pattern, in a folder and then in its subfolders."""
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    for base in (folder, *subfolders):
        yield from sorted(base.glob(pattern))


def find_sources(
    sources: Mapping[str, Source], root: str
) -> tuple[dict[str, Settings], dict[str, Refusal]]:
    """Return the settings of each source that was found, and the reason for each missing one."""
    settings: dict[str, Settings] = {}
    absent: dict[str, Refusal] = {}
    for name, source in sources.items():
        try:
            settings[name] = locate(name, source, root)
        except Refusal as refusal:
            absent[name] = refusal
    return settings, absent
