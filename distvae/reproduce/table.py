"""A published table: its rows, how to reproduce each row, and how far the results are from the
published metrics.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from distvae.config import Config
from distvae.config.recipes import load, read_tree
from distvae.data.windows import windows_of
from distvae.files.paths import atomic_file, make_folder
from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import Plain, Tree
from distvae.numerics.metrics import meaning
from distvae.reproduce.rows import Scale, group_seeds, read_rows

if TYPE_CHECKING:
    from rich.table import Table as RichTable

TABLES = Path(__file__).parent / "tables"
SPREAD = "_spread"
"""The end of a column name for the spread of a published metric."""
Settings = Mapping[str, Plain]
"""Settings of a configuration by dotted key."""
Figures = Mapping[str, float]
Published = tuple[Figures, Figures]
"""The published metrics of a row, and their standard deviations where known."""
NOT_PUBLISHED: Published = ({}, {})
COMPARISON = "comparison.json"
TEXT = ("row", "figure")
COLUMNS = (
    *TEXT,
    *("published", "obtained", "difference", "seeds", "epochs", "time", "scale", "commit"),
)
"""The columns of a comparison."""
SMOKE = "scale smoke only tests that the rows run: after so few epochs no figure compares"


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
    baseline: str = ""
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
    figures: Mapping[str, list[Tree]] = field(default_factory=dict)
    """The panels of each figure, as `figures.py` reads them."""

    @property
    def trained(self) -> list[Entry]:
        """Return the rows that are models to train."""
        return [entry for entry in self.entries if entry.recipe and not entry.baseline]

    @property
    def baselines(self) -> list[Entry]:
        """Return the rows that are baselines."""
        return [entry for entry in self.entries if entry.baseline]

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
        seeds=at_scale.get("seeds") or tree.get("seeds") or 1,
        entries=tuple(entries),
        scale=scale,
        minutes=at_scale.get("minutes"),
        figures=tree.get("figures") or {},
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
                baseline=row.get("baseline", ""),
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


@dataclass(frozen=True)
class Line:
    """One metric of one row, as published and as reproduced."""

    row: str
    figure: str
    published: float | None
    published_spread: float
    """Standard deviation of the published metric over runs, 0 if unknown."""
    obtained: float | None
    """Mean over seeds."""
    spread: float | None
    """Half the range over seeds, if there are several."""
    seeds: int = 0
    scale: str = ""
    epochs: int | None = None
    seconds: float | None = None
    """Seconds for one seed."""
    commit: str = ""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Return the reproduced metric minus the published metric."""
        if self.obtained is None or self.published is None:
            return None
        return self.obtained - self.published


def compare_rows(table: Table, folder: Path) -> list[Line]:
    """Return a line for each published or reproduced metric of each row of a table. `folder` has
    the finished rows.
    """
    groups = group_seeds(read_rows(folder, table.name))
    lines: list[Line] = []
    for entry in table.entries:
        published, group = entry.published, groups.get(entry.name)
        for figure in dict.fromkeys(
            [*(published or table.metrics), *(table.metrics if group else ())]
        ):
            spread, values = entry.spread.get(figure, 0.0), group.values(figure) if group else []
            known = Line(entry.name, figure, published.get(figure), spread, None, None)
            if group and values:
                times = [row.seconds for row in group.rows if row.seconds is not None]
                known = replace(
                    known,
                    obtained=fmean(values),
                    spread=half_range(values) if len(values) > 1 else None,
                    seeds=len(values),
                    scale=group.scale,
                    epochs=group.rows[0].epochs,
                    seconds=fmean(times) if times else None,
                    commit=group.commits,
                    note=group.note,
                )
            if values or figure in published:
                lines.append(known)
    return lines


def half_range(values: Sequence[float]) -> float:
    """Return half the distance between the largest and the smallest value."""
    return (max(values) - min(values)) / 2


def published_text(value: float, spread: float) -> str:
    """Return a published metric as it was published, and its standard deviation if known."""
    return f"{value:g} ± {spread:g}" if spread else f"{value:g}"


def write_comparison(lines: list[Line], folder: Path) -> Path:
    """Write the comparison as JSON into a folder, and return the file."""
    make_folder(folder)
    content = [asdict(line) | {"difference": line.difference} for line in lines]
    with atomic_file(folder / COMPARISON) as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    return folder / COMPARISON


def comparison_table(lines: list[Line]) -> "RichTable":
    """Return the comparison as a table to print, without empty columns."""
    from rich.table import Table as RichTable

    table = RichTable(box=None, header_style="bold", padding=(0, 1))
    columns = zip(*([line.row, line.figure, *_cells(line)] for line in lines), strict=True)
    filled = {name: cells for name, cells in zip(COLUMNS, columns, strict=True) if any(cells)}
    for name in filled:
        table.add_column(name, justify="left" if name in TEXT else "right", no_wrap=True)
    for row in zip(*filled.values(), strict=True):
        table.add_row(*row)
    return table


def notes_on(lines: list[Line]) -> Iterator[str]:
    """Yield each note once, with the names of its rows, what figures mean for which the table has
    nothing published to compare with, and what the scale of smoke means.
    """
    rows: dict[str, dict[str, None]] = {}
    for line in lines:
        if line.note:
            rows.setdefault(line.note, {})[line.row] = None
    yield from (f"{', '.join(names)}: {note}" for note, names in rows.items())
    compared = {line.figure for line in lines if line.published is not None}
    for figure in dict.fromkeys(line.figure for line in lines):
        if figure not in compared and meaning(figure):
            yield f"{figure}: {meaning(figure)}"
    if any(line.scale == "smoke" for line in lines):
        yield SMOKE


def _cells(line: Line) -> list[str]:
    from distvae.train.progress import format_duration

    spread = "" if line.spread is None else f" ± {line.spread:.3f}"
    return [
        "" if line.published is None else published_text(line.published, line.published_spread),
        _format(line.obtained, ".3f") + spread,
        _format(line.difference, "+.3f"),
        str(line.seeds or ""),
        _format(line.epochs, "d"),
        "" if line.seconds is None else format_duration(line.seconds),
        line.scale,
        line.commit,
    ]


def _format(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
