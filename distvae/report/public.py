"""A report that gives away neither recordings nor where things lie, to be committed or put on a web
site.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from distvae.report.blocks import Document, Drawing, Exhibit
from distvae.report.exhibits import ORIGINALS
from distvae.report.reading import Evidence, Sweep

BEFORE = r"(?<![\w/.)\]<+~])"
"""Where a path may begin: not within a word, another path, or a fraction."""
ANYWHERE = rf"""(?:[\w+.-]+:///+|{BEFORE}/(?!/))[^\s'"`,;:()<>|\[\]{{}}]+"""
"""Any absolute path without blanks, or a URI of one."""
TEXTS = re.compile(r">[^<]+<")
"""What an SVG shows as text."""


def public(document: Document, places: Iterable[str]) -> Document:
    """The same without sounds and pictures of originals, and with names in the place of absolute
    paths.
    """
    known = sorted({place for place in places if Path(place).is_absolute()}, key=len, reverse=True)
    exact = [rf"{BEFORE}{re.escape(place)}(?!\w)" for place in known if Path(place).name]
    cleaned: Document = _named(document, re.compile("|".join([*exact, ANYWHERE])))
    return cleaned


def places(told: Sweep | Evidence) -> Iterator[str]:
    """Where a sweep or a run has its files and its data; these paths may hold blanks."""
    yield str(told.folder.absolute())
    if isinstance(told, Evidence):
        yield str(told.config.data.path)
        return
    yield str(told.facts["config"].get("data.path", ""))
    yield from (
        str(trial.result.values["data.path"])
        for trial in told.trials
        if "data.path" in trial.result.values
    )
    for run in told.runs:
        yield from places(run)


def _named(thing: Any, paths: re.Pattern[str]) -> Any:
    """A part of a report with its paths replaced."""
    if isinstance(thing, str):
        return paths.sub(lambda found: Path(found[0]).name, thing)
    if isinstance(thing, list | tuple):
        return [_named(each, paths) for each in thing]
    if not is_dataclass(thing) or isinstance(thing, type):
        return thing
    if isinstance(thing, Exhibit):
        shown = [picture for picture in thing.pictures if picture.file.stem not in ORIGINALS]
        return replace(thing, title=_named(thing.title, paths), sounds=(), pictures=shown)
    parts = {part.name: _named(getattr(thing, part.name), paths) for part in fields(thing)}
    if isinstance(thing, Drawing):
        parts["svg"] = TEXTS.sub(lambda found: _named(found[0], paths), thing.svg)
    return replace(thing, **parts)
