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
from distvae.files.program import PACKAGE, SPACES
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Tree, read_json

RUNS = Path("runs")
BREAKS = ("=", ":", "@")
"""Characters at which bash ends a word."""
LEFT = "_DISTVAE_LEFT"
"""The environment variable with the first part of the last word, which bash does not replace."""
PATH = "data.path"
"""The setting whose values are offered with its name alone. After the sign, bash itself completes
paths, and adds no space after a folder.
"""
TABLES = PACKAGE / "reproduce" / "tables"


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes, and the folders of runs here, that begin with the incomplete word."""
    return _beginning(incomplete, [*recipe_names(), *_runs()])


def complete_space(incomplete: str) -> list[str]:
    """Return the search spaces that begin with the incomplete word."""
    return _beginning(incomplete, [*_stems(Path(SPACES.name)), *_stems(SPACES)])


def complete_table(incomplete: str) -> list[str]:
    """Return the published tables that begin with the incomplete word."""
    return _beginning(incomplete, _stems(TABLES))


def complete_citable(incomplete: str) -> list[str]:
    """Return the models and recipes that begin with the incomplete word."""
    return _beginning(incomplete, [*FAMILIES["model"], *recipe_names()])


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin with the incomplete word, each with the sign `=`.

    If a single setting is left, return its known values too, so that no shell adds a space.
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
    """Return the sections and the settings that begin with the incomplete word."""
    return _beginning(incomplete, [*FAMILIES, *_values()])


def complete_run(incomplete: str) -> list[str]:
    """Return the folders of runs and sweeps here, and the best runs of sweeps, that begin with the
    incomplete word.
    """
    best = []
    for folder, metrics in _sweeps().items():
        best += [f"best:{metric}@{folder.name}" for metric in metrics]
    return _beginning(incomplete, [*_runs(), *map(str, _sweeps()), *best])


def complete_metric(incomplete: str) -> list[str]:
    """Return the metrics of sweeps and runs here that begin with the incomplete word."""
    ranked = (metric for metrics in _sweeps().values() for metric in metrics)
    scores = (name for file in RUNS.glob("*/evaluation/*/summary.json") for name in _read(file))
    return _beginning(incomplete, [*ranked, *scores])


def join_words() -> None:
    """Join the words that bash divides at the signs within them, if bash asks for a completion.

    Bash replaces only the end of the last word: the characters after the last = or :, or from the
    last @ on. The begin of the last word is left to bash.
    """
    if os.environ.get("_DISTVAE_COMPLETE") != "complete_bash":
        return
    words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    joined = words[:1]
    for word in words[1:]:
        end = joined[-1]
        # Typer itself divides --option=value.
        is_option = len(joined) == 1 or end.startswith("-")
        if word and not is_option and (end[-1:] in BREAKS or word[0] in BREAKS):
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


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin with a word, without the part that the shell keeps."""
    found = {name for name in names if name.startswith(_whole(incomplete))}
    return sorted(name.removeprefix(_whole("")) for name in found)


def _whole(incomplete: str) -> str:
    return os.environ.get(LEFT, "") + incomplete


def _stems(folder: Path) -> Iterator[str]:
    return (path.stem for path in folder.glob("*.yaml"))


def _values() -> dict[str, set[str]]:
    """Return the settings, each with its possible values if they are few, or else its default."""
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
    return (str(file.parent) for file in RUNS.glob("*/run.json"))


def _sweeps() -> dict[Path, list[str]]:
    """Return the metrics of each sweep here, by the folder of the sweep."""
    return {file.parent: list(_read(file).get("metrics", {})) for file in RUNS.glob("*/sweep.json")}


def _read(file: Path) -> Tree:
    """Return the mapping in a JSON file, or nothing if the file is invalid or being written."""
    with suppress(OSError, Refusal):
        return read_json(file)
    return {}
