"""The JSON files of finished rows, `FOLDER/TABLE/ROW.json`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distvae.files.output import atomic_file, make_folder
from distvae.files.plain import finite
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import read_json

Scale = Literal["smoke", "day", "full"]
SCALES: tuple[Scale, ...] = ("smoke", "day", "full")
"""The scales at which a published table is reproduced, smallest first."""


@dataclass(frozen=True)
class ResultRow:
    """A finished row of a table."""

    name: str
    seed: int | None
    scale: str
    commit: str
    """The first digits of the commit, '-' where the program was installed without its history."""
    seconds: float | None
    epochs: int | None
    figures: Mapping[str, float]
    """The figures that are numbers."""
    all_figures: Mapping[str, object]
    """The figures with those that are lists by epoch, or null."""
    published: Mapping[str, float]
    published_spread: Mapping[str, float]
    """Standard deviation of what was published over runs, where it is known."""
    note: str
    section: str
    config: Mapping[str, object]
    content: Mapping[str, object]
    """Everything that the file holds."""


@dataclass(frozen=True)
class RowGroup:
    """The seeds of one row, at the largest scale it was trained at."""

    name: str
    rows: tuple[ResultRow, ...]

    def values(self, figure: str) -> list[float]:
        """Return a figure of each seed that has it."""
        return [row.figures[figure] for row in self.rows if figure in row.figures]

    def published(self, figure: str) -> float | None:
        """Return what was published for a figure."""
        return self.rows[0].published.get(figure)

    def published_spread(self, figure: str) -> float:
        """Return the standard deviation of what was published, 0 where none is known."""
        return self.rows[0].published_spread.get(figure, 0.0)

    @property
    def scale(self) -> str:
        """The scale of the seeds, '' if the row belongs to no reproduced table."""
        return self.rows[0].scale

    @property
    def note(self) -> str:
        """The note of the row, without a full stop."""
        return self.rows[0].note

    @property
    def section(self) -> str:
        """The heading of the table that shows the row, '' if that is the first of its page."""
        return self.rows[0].section

    @property
    def commits(self) -> str:
        """The commits that made the seeds."""
        return " ".join(sorted({row.commit for row in self.rows}))


def write_row(folder: Path, content: Mapping[str, object], force: bool) -> None:
    """Write a row. Raise `Refusal` if it exists and `force` is not set."""
    table = str(content["table"])
    if Path(table).name != table or table in ("", ".."):
        raise Refusal(f"{shown(table)} names no table; one folder's name expected")
    path = folder / table / f"{content['row']}.json"
    if path.exists() and not force:
        raise Refusal(f"{path}: exists; --force replaces it")
    make_folder(path.parent)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(finite(content), indent=1) + "\n")


def find_row(folder: Path, table: str, name: str) -> ResultRow | None:
    """Return the row of that name, or None."""
    path = folder / table / f"{name}.json"
    return _read_row(path) if path.is_file() else None


def read_rows(folder: Path, table: str) -> list[ResultRow]:
    """Return the finished rows of a table, sorted by file name."""
    return [_read_row(path) for path in sorted((folder / table).glob("*.json"))]


def read_tables(folder: Path) -> dict[str, list[RowGroup]]:
    """Return the rows of every folder that has some. Raise `Refusal` if there is none."""
    tables = sorted({path.parent.name for path in folder.glob("*/*.json")})
    if not tables:
        raise Refusal(
            f"{folder}: no rows; folders of JSON rows expected, which 'distvae results --add RUN' "
            "writes"
        )
    return {table: list(group_seeds(read_rows(folder, table)).values()) for table in tables}


def group_seeds(rows: list[ResultRow]) -> dict[str, RowGroup]:
    """Group the seeds of each row by its name; drop scales below the largest and repeated seeds."""
    groups: dict[str, list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(row.name.removesuffix(f"-s{row.seed}"), []).append(row)
    return {name: RowGroup(name, _counted_rows(group)) for name, group in groups.items()}


def _counted_rows(group: list[ResultRow]) -> tuple[ResultRow, ...]:
    """Return the rows at the largest scale, one for each seed."""
    largest = max(_scale_size(row) for row in group)
    by_seed: dict[int | None, ResultRow] = {}
    for row in group:
        if _scale_size(row) == largest:
            by_seed.setdefault(row.seed, row)
    return tuple(by_seed.values())


def _scale_size(row: ResultRow) -> int:
    return SCALES.index(row.scale) if row.scale in SCALES else -1


_OPTIONAL: Mapping[str, object] = {
    "published": {},
    "published_spread": {},
    **dict.fromkeys(("scale", "note", "section"), ""),
}
"""Defaults of the fields that a row may leave out."""
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "row": str,
    "commit": (str, type(None)),
    "config": dict,
    "figures": dict,
    "seconds": (int, float, type(None)),
    "epochs": (int, float, type(None)),
    "published": dict,
    "published_spread": dict,
    **dict.fromkeys(("scale", "note", "section"), str),
}


def _read_row(path: Path) -> ResultRow:
    """Read a row. Raise `Refusal` if the file is damaged."""
    content = {**_OPTIONAL, **read_json(path)}
    for name, kind in _KINDS.items():
        if not isinstance(content.get(name, ...), kind):
            raise Refusal(
                f"{path}: damaged: '{name}' is missing or of the wrong type; a row as written by "
                "'distvae results --add' expected"
            )
    config = content["config"]
    return ResultRow(
        name=content["row"],
        seed=config.get("train.seed"),
        scale=content["scale"],
        commit=(content["commit"] or "-")[:8],
        seconds=content["seconds"],
        epochs=content["epochs"],
        figures=_numbers(content["figures"]),
        all_figures=content["figures"],
        published=_numbers(content["published"]),
        published_spread=_numbers(content["published_spread"]),
        note=content["note"],
        section=content["section"],
        config=config,
        content=content,
    )


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Return the values that are finite numbers: others are lists by epoch, null, or NaN."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
