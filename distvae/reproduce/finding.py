"""Finding the data of a table below a folder, wherever in it that lies."""

import os
from collections.abc import Mapping
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.reproduce.table import Settings, Source


def locate(name: str, source: Source, root: str) -> Settings:
    """What has to be set for the data to be found: its place, and what goes with how it lies
    there.
    """
    where = root or os.environ.get("DISTVAE_DATA", "")
    wanted = f"{name} ({source.about})"
    if not where:
        raise Refusal(
            f"--data: not given, and $DISTVAE_DATA is not set; a folder with {wanted} expected"
        )
    folder = Path(where)
    if not folder.is_dir():
        raise Refusal(f"--data: {where}: no such folder; one with {wanted} expected")
    for pattern, settings in source.find.items():
        for base in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
            for found in sorted(base.glob(pattern)):
                place = (
                    found.parent
                    if source.folder and found.is_file() and found.suffix != ".npz"
                    else found
                )
                return {"data.path": str(place.absolute()), **settings}
    looked = " or ".join(source.find)
    raise Refusal(f"{where}: holds no {wanted}: {looked} expected in it or in a folder of it")


def find_sources(
    sources: Mapping[str, Source], root: str
) -> tuple[dict[str, Settings], dict[str, Refusal]]:
    """What has to be set for each that is found, and why each of the others is not."""
    places, absent = dict[str, Settings](), dict[str, Refusal]()
    for name, source in sources.items():
        try:
            places[name] = locate(name, source, root)
        except Refusal as refusal:
            absent[name] = refusal
    return places, absent
