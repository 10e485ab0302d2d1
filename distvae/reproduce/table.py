"""A published table: what its rows are, what was published for each, and how each is obtained
here.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, Literal

from distvae.config import Config
from distvae.config.recipes import load, read_tree
from distvae.config.schema import check_value
from distvae.config.values import NonNegative, Repeats
from distvae.data.family import windows_of
from distvae.files.refusal import Refusal, nearest
from distvae.report.results.rows import SCALES, Scale

TABLES = Path(__file__).parent / "tables"
FIELDS = ("about", "source", "metrics", "data", "seeds", "epoch_seconds", "rows", *SCALES)
ROW_FIELDS = (
    "recipe",
    "peer",
    "data",
    "set",
    "each",
    "epoch_seconds",
    "published",
    "note",
    "smoke",
    "day",
)
SCALE_FIELDS = ("seeds", "rows", "set", "minutes")
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Data that a table needs."""

    about: str
    """What it is and where to get it."""
    find: Mapping[str, Settings]
    """Patterns of a file, or of one in the folder that is meant, and what has to be set where that
    one is found.
    """
    folder: bool = False
    """Whether the folder of what is found is meant."""
    full: Mapping[str, int] = field(default_factory=dict)
    """Rows of the published data by split: with fewer, results are labelled so."""


@dataclass(frozen=True)
class Entry:
    """One row."""

    name: str
    recipe: str = ""
    """What it departs from; empty: it is quoted, not obtained."""
    peer: str = ""
    """The method of comparison that is judged, where it is not a model of ours."""
    data: str = ""
    settings: Settings = field(default_factory=dict)
    epoch_seconds: float = 0.0
    """Of one core, measured at the stride of its own settings."""
    published: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def config(self, settings: Settings | None = None) -> Config:
        """What is trained."""
        try:
            return load(self.recipe, {**self.settings, **(settings or {})})
        except Refusal as error:
            raise Refusal(f"row {self.name}: {error}") from error


@dataclass(frozen=True)
class Table:
    """A published table, at one scale."""

    name: str
    about: str
    source: str
    metrics: Mapping[str, Literal["max", "min"]]
    """The figures that rows are held against."""
    data: Mapping[str, Source]
    seeds: int
    entries: tuple[Entry, ...]
    scale: Scale = "full"
    minutes: float | None = None
    """Of one core for all rows and seeds, where the scale says it."""

    @property
    def trained(self) -> list[Entry]:
        """The rows that are models to train."""
        return [entry for entry in self.entries if entry.recipe and not entry.peer]

    @property
    def peers(self) -> list[Entry]:
        """The rows that are methods of comparison."""
        return [entry for entry in self.entries if entry.peer]

    @property
    def quoted(self) -> list[Entry]:
        """The rows that are not obtained here."""
        return [entry for entry in self.entries if not entry.recipe]

    def only(self, patterns: list[str]) -> "Table":
        """The rows of some names, and what is quoted."""
        for pattern in patterns:
            if not any(fnmatchcase(entry.name, pattern) for entry in self.entries):
                raise Refusal(
                    f"--only: no row {pattern}; {nearest(pattern, [e.name for e in self.entries])}"
                )
        kept = [
            e for e in self.entries if not e.recipe or any(fnmatchcase(e.name, p) for p in patterns)
        ]
        return replace(self, entries=tuple(kept), minutes=self.minutes if "*" in patterns else None)

    def cost(self) -> float:
        """Seconds of one core for what is trained, from measured epochs."""
        if self.minutes is not None:
            return 60 * self.minutes
        return self.seeds * sum(
            entry.config().train.epochs * entry.epoch_seconds for entry in self.trained
        )


def table_names() -> list[str]:
    """The tables that there are."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def read_table(name: str, scale: Scale = "full") -> Table:
    """A table at some scale."""
    if name not in table_names():
        raise Refusal(f"{name}: no such table; {nearest(name, table_names())}")
    tree = read_tree(TABLES / f"{name}.yaml")
    try:
        return _read(name, tree, scale)
    except Refusal as error:
        raise Refusal(f"{TABLES / name}.yaml: {error}") from error


def _read(name: str, tree: Mapping[str, Any], scale: Scale) -> Table:
    _known("", tree, FIELDS)
    how = tree.get(scale) or {}
    _known(f"{scale}.", how, SCALE_FIELDS)
    entries = [
        _scaled(entry, scale, row, how)
        for entry, row in _entries(tree, _listed(TABLES / f"{name}.csv"))
        if not entry.recipe
        or any(fnmatchcase(entry.name, pattern) for pattern in how.get("rows", ["*"]))
    ]
    return Table(
        name=name,
        about=check_value("about", str, tree["about"]),
        source=check_value("source", str, tree["source"]),
        metrics={
            key: check_value(f"metrics.{key}", Literal["max", "min"], mode)
            for key, mode in tree["metrics"].items()
        },
        data={key: _source(key, told) for key, told in (tree.get("data") or {}).items()},
        seeds=check_value("seeds", Repeats, how.get("seeds", tree.get("seeds", 1))),
        entries=tuple(entries),
        scale=scale,
        minutes=check_value("minutes", NonNegative | None, how.get("minutes")),
    )


def _known(where: str, tree: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in tree:
        if name not in names:
            raise Refusal(f"{where}{name}: no such field; {nearest(str(name), names)}")


def _source(name: str, tree: Mapping[str, Any]) -> Source:
    _known(f"data.{name}.", tree, ("about", "find", "folder", "full"))
    find = {str(pattern): settings or {} for pattern, settings in tree["find"].items()}
    return Source(tree["about"], find, tree.get("folder", False), tree.get("full") or {})


def _listed(path: Path) -> dict[str, dict[str, float]]:
    """The published figures of a CSV, by row; lines that begin with # tell where they are from."""
    if not path.is_file():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {
        row.pop("row"): {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(lines)
    }


def _entries(
    tree: Mapping[str, Any], listed: dict[str, dict[str, float]]
) -> Iterator[tuple[Entry, Settings]]:
    """Every row, of those that stand for several each; and what was published without being
    obtained here.
    """
    data = next(iter(tree.get("data") or {}), "")
    names = []
    for pattern, told in tree["rows"].items():
        _known(f"rows.{pattern}.", told, ROW_FIELDS)
        for name, row in _multiplied(str(pattern), told):
            published = listed.get(name, {}) | (row.get("published") or {})
            needs = row.get("data", data if "recipe" in row else "")
            seconds = row.get("epoch_seconds", tree.get("epoch_seconds", 0.0))
            plain = {key: row.get(key, "") for key in ("recipe", "peer", "note")}
            settings = row.get("set") or {}
            yield (
                Entry(
                    name,
                    data=needs,
                    settings=settings,
                    epoch_seconds=seconds,
                    published=published,
                    **plain,
                ),
                row,
            )
            names.append(name)
    for name, published in listed.items():
        if name not in names:
            yield Entry(name, published=published), {}


def _multiplied(pattern: str, row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A row for each combination of what its `each` lists, put in the place of its name in
    braces.
    """
    each: dict[str, list[Any]] = dict(row.get("each") or {})
    for values in product(*each.values()):
        words = dict(zip(each, values, strict=True))
        filled: Mapping[str, Any] = _filled(row, words) if words else row
        yield pattern.format(**words), filled


def _filled(tree: Any, words: Mapping[str, Any]) -> Any:
    import yaml

    if isinstance(tree, Mapping):
        return {key: _filled(value, words) for key, value in tree.items() if key != "each"}
    if isinstance(tree, list):
        return [_filled(value, words) for value in tree]
    if isinstance(tree, str) and "{" in tree:
        return yaml.safe_load(tree.format(**words))
    return tree


def _scaled(entry: Entry, scale: Scale, row: Settings, how: Settings) -> Entry:
    """The row with what the scale sets for all rows, and for this one; fewer windows take less
    time.
    """
    own = (row.get(scale) or {}) if scale in ROW_FIELDS else {}
    told = {**(how.get("set") or {}), **own}
    scaled = replace(entry, settings={**entry.settings, **told})
    if "data.stride" not in told or not entry.epoch_seconds:
        return scaled
    return replace(
        scaled,
        epoch_seconds=entry.epoch_seconds * _density(scaled.config()) / _density(entry.config()),
    )


def _density(config: Config) -> float:
    """Windows beside those of a stride of one."""
    windows = windows_of(config.data)
    return 1.0 if windows is None else windows.density
