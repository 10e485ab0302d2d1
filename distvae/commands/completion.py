"""Shell completion of recipes, spaces, tables, settings, metrics and runs.

The shell starts the program at each press of Tab, so nothing heavy is imported.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Literal, get_args, get_origin

from distvae.config.recipes import recipe_names
from distvae.config.registry import FAMILIES
from distvae.config.schema import field_types
from distvae.files.checkout import PACKAGE, SPACES
from distvae.files.plain import Tree

RUNS = Path("runs")
BREAKS = ("=", ":")
"""Characters at which bash ends a word."""
TABLES = PACKAGE / "reproduce" / "tables"


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes that begin as a word does."""
    return _beginning(incomplete, recipe_names())


def complete_space(incomplete: str) -> list[str]:
    """Return the search spaces that begin as a word does."""
    return _beginning(incomplete, [*_stems(Path(SPACES.name)), *_stems(SPACES)])


def complete_table(incomplete: str) -> list[str]:
    """Return the published tables that begin as a word does."""
    return _beginning(incomplete, _stems(TABLES))


def complete_citable(incomplete: str) -> list[str]:
    """Return the models and recipes that begin as a word does."""
    return _beginning(incomplete, [*FAMILIES["model"], *recipe_names()])


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin as a word does, each with the sign that a value follows. If
    there is one, return its values too, as far as they are known.
    """
    name, sign, _ = (_cut_off() + incomplete).partition("=")
    values = _values()
    if not sign:
        named = [each for each in values if each.startswith(name)]
        if len(named) != 1:
            return _beginning(incomplete, (f"{each}=" for each in named))
        name = named[0]
    words = (f"{name}={value}" for value in values.get(name, ()))
    return _beginning(incomplete, [*words, *([] if sign else [f"{name}="])])


def complete_key(incomplete: str) -> list[str]:
    """Return the sections and the settings that begin as a word does."""
    return _beginning(incomplete, [*FAMILIES, *_values()])


def complete_run(incomplete: str) -> list[str]:
    """Return the folders of runs and sweeps that begin as a word does, and the best of sweeps."""
    runs = (str(file.parent) for file in RUNS.glob("*/run.json"))
    return _beginning(incomplete, [*runs, *map(str, _sweeps()), *_bests()])


def complete_metric(incomplete: str) -> list[str]:
    """Return the metrics of sweeps and runs here that begin as a word does."""
    ranked = (metric for metrics in _sweeps().values() for metric in metrics)
    scores = (name for file in RUNS.glob("*/evaluation/*/summary.json") for name in _read(file))
    return _beginning(incomplete, [*ranked, *scores])


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin as a word does, without what the shell takes for other words."""
    before = _cut_off()
    found = {name for name in names if name.startswith(before + incomplete)}
    return sorted(name.removeprefix(before) for name in found)


def _cut_off() -> str:
    """Return the part of the word to complete that bash takes for words before it."""
    if os.environ.get("_DISTVAE_COMPLETE") != "complete_bash":
        return ""
    words, place = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    before = "=" if words[place : place + 1] == ["="] else ""
    while place > 1 and (words[place - 1] in BREAKS or before.startswith(BREAKS)):
        place -= 1
        before = words[place] + before
    return before


def _stems(folder: Path) -> Iterator[str]:
    return (path.stem for path in folder.glob("*.yaml"))


def _values() -> dict[str, set[str]]:
    """Return the settings, each with what it may be, or else with its defaults."""
    found: dict[str, set[str]] = {}
    for section, families in FAMILIES.items():
        if len(families) > 1:
            found[f"{section}.kind"] = {*families}
        for config in families.values():
            defaults = {field.name: field.default for field in fields(config)}
            for name, hint in field_types(config).items():
                values = found.setdefault(f"{section}.{name}", set())
                values |= _choices(hint, defaults[name])
    return found


def _choices(hint: object, default: object) -> set[str]:
    """Return the values of a type that has few, or else a default that can be typed."""
    if get_origin(hint) is Literal:
        return {*map(str, get_args(hint))}
    if isinstance(default, bool):
        return {"false", "true"}
    is_shown = default is not MISSING and isinstance(default, int | float | str) and default != ""
    return {str(default)} if is_shown else set()


def _sweeps() -> dict[Path, list[str]]:
    """Return the metrics of each sweep here, by its folder."""
    return {file.parent: list(_read(file).get("metrics", {})) for file in RUNS.glob("*/sweep.json")}


def _bests() -> Iterator[str]:
    for folder, metrics in _sweeps().items():
        yield from (f"best:{metric}@{folder.name}" for metric in metrics)


def _read(file: Path) -> Tree:
    """Return the mapping in a JSON file, or nothing if it holds none or is being written."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
