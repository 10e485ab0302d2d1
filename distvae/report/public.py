"""Reports without recordings and without paths, to be committed or put on a web site."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from distvae.config import Config
from distvae.config.data.speech import CSV
from distvae.report.blocks import Document, Drawing, Exhibit
from distvae.report.exhibits import ORIGINALS
from distvae.report.reading import RunResults, Sweep

PATH_START = r"(?<![\w/.)\]<+~])"
"""A place where a path may begin: not within a word, another path, or a fraction."""
ANY_PATH = rf"""(?:[\w+.-]+:///+|{PATH_START}/(?!/))[^\s'"`,;:()<>|\[\]{{}}]+"""
"""An absolute path without blanks, or a URI of one."""
UNHEARD = "Its recordings are left out here."
SVG_TEXT = re.compile(r">[^<]+<")


def redact(document: Document, paths: Iterable[str]) -> Document:
    """Return a report without sounds and originals, with paths replaced by their names.

    `paths` are known paths and URIs, which may hold blanks; other absolute ones are recognised by
    their form.
    """
    private = {path for path in paths if "/" in path and Path(path).name}
    longest_first = sorted(private, key=len, reverse=True)
    written = [form for path in longest_first for form in (_in_a_command(path), path)]
    exact = [rf"{PATH_START}{re.escape(form)}(?!\w)" for form in dict.fromkeys(written)]
    redacted = _redact(document, re.compile("|".join([*exact, ANY_PATH])))
    assert isinstance(redacted, Document), "a part keeps its type"
    return redacted


def _in_a_command(path: str) -> str:
    """Return a path as a shell takes it, without the quotes around it."""
    return shlex.quote(path).strip("'")


def private_paths(subject: Sweep | RunResults) -> Iterator[str]:
    """Yield the paths of a sweep's or a run's files and data."""
    yield str(subject.folder.absolute())
    if isinstance(subject, RunResults):
        yield from _private_settings(subject.config)
        yield str(subject.info["recipe"] or "")
        return
    yield str(subject.facts["config"].get("data.path", ""))
    yield str(subject.facts.get("recipe", ""))
    for trial in subject.trials:
        if "data.path" in trial.result.values:
            yield str(trial.result.values["data.path"])
    for run in subject.runs:
        yield from private_paths(run)


def _private_settings(config: Config) -> Iterator[str]:
    """Yield the paths in a configuration."""
    yield str(config.data.path)
    yield getattr(config.data, "speakers", "").removeprefix(CSV)
    yield getattr(config.estep, "mapped", None) or ""


def _redact(part: object, paths: re.Pattern[str]) -> object:
    """Return a part of a report with its paths replaced."""
    if isinstance(part, str):
        return _redact_text(part, paths)
    if isinstance(part, list | tuple):
        return [_redact(each, paths) for each in part]
    if not is_dataclass(part) or isinstance(part, type):
        return part
    if isinstance(part, Exhibit):
        pictures = [each for each in part.pictures if each.file.stem not in ORIGINALS]
        title, note = _redact_text(part.title, paths), part.note
        if part.sounds:
            note = f"{note} {UNHEARD}".strip()
        return replace(part, title=title, sounds=(), pictures=pictures, note=note)
    values = {field.name: _redact(getattr(part, field.name), paths) for field in fields(part)}
    if isinstance(part, Drawing):
        values["svg"] = SVG_TEXT.sub(lambda match: _redact_text(match[0], paths), part.svg)
    return replace(part, **values)


def _redact_text(text: str, paths: re.Pattern[str]) -> str:
    return paths.sub(lambda match: Path(match[0]).name, text)
