"""Find the family of data that reads a path, and ask it for a survey."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import getattr_static

from distvae.config import DataConfig, Generated
from distvae.config.schema import load_extensions
from distvae.data.family import DATA, AnyFamily, DataFamily, Survey, family_of
from distvae.data.folders import is_remote, local_path
from distvae.data.idx import IdxFamily
from distvae.data.images import EXPECTED as IMAGES
from distvae.data.images import ImageFamily
from distvae.data.rows import RowsFamily
from distvae.data.speech import SpeechFamily
from distvae.data.windows import PatchFamily
from distvae.files.paths import resolve_path
from distvae.files.refusal import Refusal

IN_THIS_ORDER = (RowsFamily, IdxFamily, ImageFamily, SpeechFamily, PatchFamily)
"""The families of the package that recognise their data. The first family that recognises a path
reads it.
"""
RUN_FILES = ("run.json", "config.yaml")
"""Files of a run folder. Its pictures are no data."""


def survey(path: str) -> Survey:
    """Return the survey of a path or a URI. Pictures and recordings in folders are opened, but not
    decoded.
    """
    return _ask(path, lambda family, place: family.survey(place))


def examine(path: str, settings: Sequence[str] = ()) -> Survey:
    """Return the survey of a path or a URI, under settings like `data.skip_broken=true`. Pictures
    and recordings in folders are decoded to find broken files.
    """
    found = _ask(path, lambda family, place: family.examine(place, settings))
    for word in settings:
        if word not in found.settings:
            raise Refusal(f"{word}: changes nothing that is checked of {found.layout}; omit it")
    return found


def _ask(path: str, ask: Callable[[type[AnyFamily], str], Survey | None]) -> Survey:
    """Return the first answer of a family."""
    families = _families()
    for family in families:
        if path in family.built_in and (found := ask(family, path)) is not None:
            return found
    place = resolve_path(local_path(path))
    if not place.exists():
        built_in = [repr(name) for family in families for name in family.built_in]
        raise Refusal(f"{path}: no such file or folder; data, or {', '.join(built_in)}, expected")
    if all((place / name).is_file() for name in RUN_FILES):
        raise Refusal(f"{path}: the folder of a run; the data to train on expected")
    for family in families:
        if (found := ask(family, str(place))) is not None:
            return replace(found, path=path) if is_remote(path) else found
    raise Refusal(
        f"{place}: no data known here; recordings, idx files, rows of 'distvae ingest', {IMAGES}"
    )


def _families() -> list[type[AnyFamily]]:
    """Return the families to ask, beginning with families of other packages, which are more
    specific. A package that cannot be imported is reported.
    """
    try:
        load_extensions("data")
    except Refusal as error:
        print(f"distvae: {error}; its data are not recognised", file=sys.stderr)
    others = [family for _, family in DATA.items() if family not in IN_THIS_ORDER]
    return [*others, *IN_THIS_ORDER]


def survey_of_another_kind(path: str, config: DataConfig) -> Survey | None:
    """Return the survey of a path, or None if the configured kind of data is to read it.

    A kind that no survey finds, like windows of pictures, gives way to a folder of rows only.
    """
    found = survey(path) if _follows_path(config) else RowsFamily.survey(path)
    return found if found and found.kind != config.kind else None


def _follows_path(config: DataConfig) -> bool:
    """Return whether a survey can find the configured kind of data."""
    own, inherited = (getattr_static(each, "survey") for each in (family_of(config), DataFamily))
    return isinstance(config, Generated) or own is not inherited
