"""`distvae data check`: print what data was recognised, and what is wrong with it."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distvae.data.survey import Survey
    from distvae.files.plain import Plain

RECIPES = {
    "speech": "speech-sdm",
    "idx": "mnist-vae",
    "rows": "mnist-vae data.kind=rows model.likelihood=gaussian",
}
"""A recipe for each kind of data."""
KNOWN_DATASETS = {"CIFAR-10": "cifar10-vae", "CelebA": "celeba-vsc"}
"""The recipes of datasets that are recognised by name."""


def check_data(path: str, as_json: bool) -> int:
    """Print what a path contains and what is wrong with it; return the exit code."""
    from distvae.data.survey import survey

    found = survey(path)
    if as_json:
        print(json.dumps(asdict(found) | {"exit_code": found.exit_code}))
    else:
        print("\n".join(_lines(found)))
    return found.exit_code


def _lines(found: "Survey") -> Iterator[str]:
    yield f"{found.path}: {found.layout}"
    if found.splits:
        columns = list(next(iter(found.splits.values())))
        yield f"{'split':10}" + "".join(f"{column:>12}" for column in columns)
        for split, amount in found.splits.items():
            cells = [f"{_format_number(amount[column]):>12}" for column in columns]
            yield f"{split or 'none':10}" + "".join(cells)
    for name, value in found.facts.items():
        yield f"{name + ':':16}{_format_fact(value)}"
    for label, lines in (("wrong", found.wrong), ("unreadable", found.unreadable)):
        yield from (f"{label + ':':16}{line}" for line in lines)
    if not found.unreadable:
        yield f"{'next:':16}{_next_command(found)}"


def _format_number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _format_fact(value: "Plain") -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({count:,})" for name, count in value.items())
    if isinstance(value, str):
        return value
    assert isinstance(value, int | float)
    return _format_number(value)


def _next_command(found: "Survey") -> str:
    """Return a command that trains on the data."""
    from distvae.data.examples import PICTURE, SOUND

    path = shlex.quote(found.path)
    if found.path == PICTURE:
        return f"distvae train picture-fast --data {path}"
    if found.path == SOUND:
        return f"distvae train sound-fast --data {path}"
    if found.kind == "patches":
        target = "clean.png" if "width" in found.facts else "clean.wav"
        return f"distvae denoise {path} {target}"
    return f"distvae train {_recipe(found)} --data {path}"


def _recipe(found: "Survey") -> str:
    """Return a recipe for the data, with the settings that it needs."""
    for name, recipe in KNOWN_DATASETS.items():
        if found.layout.startswith(name):
            return recipe
    if found.kind in RECIPES:
        return RECIPES[found.kind]
    size = " data.size=[height,width]" if found.facts.get("sizes", 1) != 1 else ""
    return f"mnist-vae data.kind=images{size}"
