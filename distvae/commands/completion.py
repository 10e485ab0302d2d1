"""Shell completion of recipes, spaces, tables, settings, metrics and runs.

The shell starts the program at each press of Tab, so nothing heavy is imported.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distvae.config.recipes import recipe_names
from distvae.config.registry import FAMILIES
from distvae.config.schema import field_types
from distvae.files.checkout import PACKAGE, SPACES

RUNS = Path("runs")
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
    """Return the settings that begin as a word does, each with the sign that a value follows."""
    return _beginning(incomplete, _settings())


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
    return sorted({name for name in names if name.startswith(incomplete)})


def _stems(folder: Path) -> Iterator[str]:
    return (path.stem for path in folder.glob("*.yaml"))


def _settings() -> Iterator[str]:
    for section, families in FAMILIES.items():
        if len(families) > 1:
            yield f"{section}.kind="
        for config in families.values():
            yield from (f"{section}.{name}=" for name in field_types(config))


def _sweeps() -> dict[Path, list[str]]:
    """Return the metrics of each sweep here, by its folder."""
    return {file.parent: list(_read(file).get("metrics", {})) for file in RUNS.glob("*/sweep.json")}


def _bests() -> Iterator[str]:
    for folder, metrics in _sweeps().items():
        yield from (f"best:{metric}@{folder.name}" for metric in metrics)


def _read(file: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file, or nothing if it holds none or is being written."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
