"""Shell completion of recipes, spaces, tables, settings, metrics and runs.

The shell starts the program at each press of Tab, so nothing heavy is imported.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import Field, fields
from pathlib import Path
from typing import Literal, get_args, get_origin

from distvae.config.explanations import default_of
from distvae.config.recipes import recipe_names
from distvae.config.registry import FAMILIES
from distvae.config.schema import field_types
from distvae.files.checkout import PACKAGE, SPACES
from distvae.files.plain import Tree
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json

RUNS = Path("runs")
BREAKS = ("=", ":", "@")
"""Characters at which bash ends a word."""
LEFT = "_DISTVAE_LEFT"
"""The variable with the part of the word that bash leaves as it is, and completes what follows."""
PATH = "data.path"
"""The setting whose values are offered with its name alone: after the sign, bash completes paths by
itself, and without a space after a folder.
"""
TABLES = PACKAGE / "reproduce" / "tables"


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes, and the folders of runs here, that begin as a word does."""
    return _beginning(incomplete, [*recipe_names(), *_runs()])


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
    there is one, return its values too, as far as they are known, so that no shell adds a space.
    """
    name, sign, _ = _whole(incomplete).partition("=")
    values = _values()
    if not sign:
        named = [each for each in values if each.startswith(name)]
        if len(named) != 1:
            return _beginning(incomplete, (f"{each}=" for each in named))
        (name,) = named
        values[PATH] = {path.name for path in Path().iterdir()}
    words = (f"{name}={value}" for value in values.get(name, ()))
    return _beginning(incomplete, [*words, *([] if sign else [f"{name}="])])


def complete_key(incomplete: str) -> list[str]:
    """Return the sections and the settings that begin as a word does."""
    return _beginning(incomplete, [*FAMILIES, *_values()])


def complete_run(incomplete: str) -> list[str]:
    """Return the folders of runs and sweeps that begin as a word does, and the best of sweeps."""
    return _beginning(incomplete, [*_runs(), *map(str, _sweeps()), *_bests()])


def complete_metric(incomplete: str) -> list[str]:
    """Return the metrics of sweeps and runs here that begin as a word does."""
    ranked = (metric for metrics in _sweeps().values() for metric in metrics)
    scores = (name for file in RUNS.glob("*/evaluation/*/summary.json") for name in _read(file))
    return _beginning(incomplete, [*ranked, *scores])


def join_words() -> None:
    """Where bash completes, join the words that it divides at signs within them. Of the last one,
    leave what bash replaces: what follows its last sign, or the sign too if that is an @.
    """
    if os.environ.get("_DISTVAE_COMPLETE") != "complete_bash":
        return
    words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    joined = words[:1]
    for word in words[1:]:
        if word and _is_divided(joined, word):
            joined[-1] += word
        else:
            joined.append(word)
    *before, last = joined
    signs = {last.rfind("=") + 1, last.rfind(":") + 1, last.rfind("@")}
    left = max(signs) if last != words[-1] else 0
    os.environ |= {
        "COMP_WORDS": "\n".join([*before, last[left:]]),
        "COMP_CWORD": str(len(before)),
        LEFT: last[:left],
    }


def _is_divided(before: list[str], word: str) -> bool:
    """Return whether a word belongs to the one before; --option=value is divided by Typer too."""
    end = before[-1]
    if len(before) == 1 or end.startswith("-"):
        return False
    return end[-1:] in BREAKS or word[0] in BREAKS


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin as a word does, without the part that the shell leaves."""
    found = {name for name in names if name.startswith(_whole(incomplete))}
    return sorted(name.removeprefix(_whole("")) for name in found)


def _whole(incomplete: str) -> str:
    return os.environ.get(LEFT, "") + incomplete


def _stems(folder: Path) -> Iterator[str]:
    return (path.stem for path in folder.glob("*.yaml"))


def _values() -> dict[str, set[str]]:
    """Return the settings, each with what it may be, or else with its defaults."""
    found: dict[str, set[str]] = {}
    for section, families in FAMILIES.items():
        if len(families) > 1:
            found[f"{section}.kind"] = {*families}
        for config in families.values():
            hints = field_types(config)
            for field in fields(config):
                values = found.setdefault(f"{section}.{field.name}", set())
                values |= _choices(hints[field.name], field)
    return found


def _choices(hint: object, field: "Field[object]") -> set[str]:
    """Return the values of a type that has few, or else the default as one word of a shell."""
    if get_origin(hint) is Literal:
        return {*map(str, get_args(hint))}
    if hint is bool:
        return {"false", "true"}
    if get_origin(hint) is tuple and get_origin(element := get_args(hint)[0]) is Literal:
        return {f"[{each}]" for each in get_args(element)}
    default = default_of(field).replace(" ", "")
    return {default} if default else set()


def _runs() -> Iterator[str]:
    """Return the folders of the runs here."""
    return (str(file.parent) for file in RUNS.glob("*/run.json"))


def _sweeps() -> dict[Path, list[str]]:
    """Return the metrics of each sweep here, by its folder."""
    return {file.parent: list(_read(file).get("metrics", {})) for file in RUNS.glob("*/sweep.json")}


def _bests() -> Iterator[str]:
    for folder, metrics in _sweeps().items():
        yield from (f"best:{metric}@{folder.name}" for metric in metrics)


def _read(file: Path) -> Tree:
    """Return the mapping in a JSON file, or nothing if it holds none or is being written."""
    with suppress(OSError, Refusal):
        return read_json(file)
    return {}
