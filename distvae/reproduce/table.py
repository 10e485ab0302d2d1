"""A published table: its rows, their published metrics, and how to reproduce each row."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Literal

from distvae.config import Config
from distvae.config.recipes import load, read_tree
from distvae.data.windows import windows_of
from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import Plain, Tree
from distvae.reproduce.rows import Scale

TABLES = Path(__file__).parent / "tables"
SPREAD = "_spread"
"""The end of a column name for the spread of a published metric."""
Settings = Mapping[str, Plain]
"""Settings of a configuration by dotted key."""
Figures = Mapping[str, float]
Published = tuple[Figures, Figures]
"""The published metrics of a row, and their standard deviations where known."""
NOT_PUBLISHED: Published = ({}, {})


@dataclass(frozen=True)
class Source:
    """Data that a table needs."""

    about: str
    """Description of the data, and where to get it."""
    find: Mapping[str, Settings]
    """Patterns of a file, in the given folder or in a subfolder, each with the settings to use when
    it matches.
    """
    folder: bool = False
    """Whether the data is the folder of the matching file."""
    full: Mapping[str, int] = field(default_factory=dict)
    """Number of rows in each split of the published data. Results on fewer rows are labelled so."""


@dataclass(frozen=True)
class Entry:
    """One row of a table."""

    name: str
    recipe: str = ""
    """The recipe of the row; empty for a row that is only quoted."""
    peer: str = ""
    """The baseline to evaluate, for a row that is not a model of this package."""
    data: str = ""
    settings: Settings = field(default_factory=dict)
    epoch_seconds: float = 0.0
    """Seconds of an epoch on one core, measured at the stride of the row's own settings."""
    published: Figures = field(default_factory=dict)
    spread: Figures = field(default_factory=dict)
    """Standard deviation of a published metric over runs, where known."""
    note: str = ""

    def config(self, settings: Settings | None = None) -> Config:
        """Return the configuration of the row, with more settings if given."""
        try:
            return load(self.recipe, {**self.settings, **(settings or {})})
        except Refusal as error:
            raise Refusal(f"row {self.name}: {error}") from error

    def matches(self, patterns: Iterable[str]) -> bool:
        """Return whether the name of the row matches one of the patterns."""
        return any(fnmatchcase(self.name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Table:
    """A published table, at one scale."""

    name: str
    about: str
    source: str
    metrics: Mapping[str, Literal["max", "min"]]
    """The metrics that are compared with published metrics."""
    data: Mapping[str, Source]
    seeds: int
    entries: tuple[Entry, ...]
    scale: Scale = "full"
    minutes: float | None = None
    """Minutes of one core for all rows and seeds, if the scale states them."""

    @property
    def trained(self) -> list[Entry]:
        """Return the rows that are models to train."""
        return [entry for entry in self.entries if entry.recipe and not entry.peer]

    @property
    def peers(self) -> list[Entry]:
        """Return the rows that are baselines."""
        return [entry for entry in self.entries if entry.peer]

    @property
    def quoted(self) -> list[Entry]:
        """Return the rows that are only quoted."""
        return [entry for entry in self.entries if not entry.recipe]

    def only(self, patterns: list[str]) -> "Table":
        """Return the table with the rows that match a pattern, and with all quoted rows."""
        for pattern in patterns:
            if not any(entry.matches([pattern]) for entry in self.entries):
                names = [entry.name for entry in self.entries]
                raise Refusal(f"--only: no row {pattern}; {nearest(pattern, names)}")
        selected = [entry for entry in self.entries if not entry.recipe or entry.matches(patterns)]
        minutes = self.minutes if "*" in patterns else None
        return replace(self, entries=tuple(selected), minutes=minutes)

    def cost(self) -> float:
        """Return the estimated seconds of one core for all models and seeds."""
        if self.minutes is not None:
            return 60 * self.minutes
        seconds = 0.0
        for entry in self.trained:
            seconds += entry.config().train.epochs * entry.epoch_seconds
        return self.seeds * seconds


def table_names() -> list[str]:
    """Return the names of all tables."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def read_table(name: str, scale: Scale = "full") -> Table:
    """Return a table at some scale."""
    if name not in table_names():
        raise Refusal(f"{name}: no such table; {nearest(name, table_names())}")
    tree = read_tree(TABLES / f"{name}.yaml")
    try:
        return _parse_table(name, tree, scale)
    except Refusal as error:
        raise Refusal(f"{TABLES / name}.yaml: {error}") from error


def _parse_table(name: str, tree: Tree, scale: Scale) -> Table:
    at_scale = tree.get(scale) or {}
    patterns = at_scale.get("rows", ["*"])
    entries = []
    for entry, row in _parse_entries(tree, _read_published(TABLES / f"{name}.csv")):
        if not entry.recipe or entry.matches(patterns):
            entries.append(_at_scale(entry, scale, row, at_scale))
    sources = tree.get("data") or {}
    return Table(
        name=name,
        about=tree["about"],
        source=tree["source"],
        metrics=tree["metrics"],
        data={key: _parse_source(source) for key, source in sources.items()},
        seeds=at_scale.get("seeds", tree.get("seeds", 1)),
        entries=tuple(entries),
        scale=scale,
        minutes=at_scale.get("minutes"),
    )


def _parse_source(tree: Tree) -> Source:
    find = {pattern: settings or {} for pattern, settings in tree["find"].items()}
    return Source(**{**tree, "find": find})


def _read_published(path: Path) -> dict[str, Published]:
    """Return the published metrics and their spreads in a CSV file, by row. Lines with # give their
    source.
    """
    if not path.is_file():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    published: dict[str, Published] = {}
    for row in csv.DictReader(lines):
        name = row.pop("row")
        figures = {figure: float(value) for figure, value in row.items() if value}
        means = {key: value for key, value in figures.items() if not key.endswith(SPREAD)}
        spreads = {key: figures[key + SPREAD] for key in means if key + SPREAD in figures}
        published[name] = (means, spreads)
    return published


def _parse_entries(tree: Tree, published: Mapping[str, Published]) -> Iterator[tuple[Entry, Tree]]:
    """Yield each row with its part of the file, and then the quoted rows."""
    first_source = next(iter(tree.get("data") or {}), "")
    names = set()
    for pattern, template in tree["rows"].items():
        for name, row in _expand(str(pattern), template):
            names.add(name)
            entry = Entry(
                name,
                recipe=row.get("recipe", ""),
                peer=row.get("peer", ""),
                data=row.get("data", first_source if "recipe" in row else ""),
                settings=row.get("set") or {},
                epoch_seconds=row.get("epoch_seconds") or tree.get("epoch_seconds", 0.0),
                published={**published.get(name, NOT_PUBLISHED)[0], **(row.get("published") or {})},
                spread=published.get(name, NOT_PUBLISHED)[1],
                note=row.get("note", ""),
            )
            yield entry, row
    for name, figures in published.items():
        if name not in names:
            yield Entry(name, published=figures[0], spread=figures[1]), {}


def _expand(pattern: str, row: Tree) -> Iterator[tuple[str, Tree]]:
    """Yield a row for each combination of the values in the row's `each`.

    A value replaces its name in braces, in the name and in the fields of the row.
    """
    each: dict[str, list[Plain]] = dict(row.get("each") or {})
    for values in product(*each.values()):
        words = dict(zip(each, values, strict=True))
        filled = {key: _fill_in(row[key], words) for key in row if words and key != "each"}
        yield pattern.format(**words), filled or row


def _fill_in(value: Plain, words: Mapping[str, Plain]) -> Plain:
    """Return a value with each name in braces replaced by its word, read as YAML."""
    import yaml

    if isinstance(value, Mapping):
        return {key: _fill_in(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill_in(item, words) for item in value]
    if isinstance(value, str) and "{" in value:
        filled: Plain = yaml.safe_load(value.format(**words))
        return filled
    return value


def _at_scale(entry: Entry, scale: Scale, row: Tree, at_scale: Tree) -> Entry:
    """Return a row with the settings of a scale, for all rows and for this row.

    Fewer windows take less time.
    """
    settings = {**(at_scale.get("set") or {}), **(row.get(scale) or {})}
    scaled = replace(entry, settings={**entry.settings, **settings})
    if "data.stride" not in settings or not entry.epoch_seconds:
        return scaled
    windows, before = (windows_of(each.config().data) for each in (scaled, entry))
    if windows is None or before is None:
        return scaled
    return replace(scaled, epoch_seconds=entry.epoch_seconds * windows.density / before.density)


def locate(name: str, source: Source, root: str) -> Settings:
    """Return the settings for a source of data: its path and the settings of its layout.

    The data may lie in the folder or in a subfolder. Raise `Refusal` if it does not.
    """
    place = root or os.environ.get("DISTVAE_DATA", "")
    wanted = f"{name} ({source.about})"
    if not place:
        raise Refusal(
            f"--data: not given, and $DISTVAE_DATA is not set; a folder with {wanted} expected"
        )
    folder = Path(place)
    if not folder.is_dir():
        raise Refusal(f"--data: {place}: no such folder; a folder with {wanted} expected")
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    for pattern, settings in source.find.items():
        for found in (
            path for base in (folder, *subfolders) for path in sorted(base.glob(pattern))
        ):
            wants_folder = source.folder and found.is_file() and found.suffix != ".npz"
            path = found.parent if wants_folder else found
            return {"data.path": str(path.absolute()), **settings}
    patterns = " or ".join(source.find)
    raise Refusal(f"{place}: holds no {wanted}: {patterns} expected in it or in a folder of it")


def find_sources(
    sources: Mapping[str, Source], root: str
) -> tuple[dict[str, Settings], dict[str, Refusal]]:
    """Return the settings of each source that was found, and the reason for each missing one."""
    settings: dict[str, Settings] = {}
    absent: dict[str, Refusal] = {}
    for name, source in sources.items():
        try:
            settings[name] = locate(name, source, root)
        except Refusal as refusal:
            absent[name] = refusal
    return settings, absent
