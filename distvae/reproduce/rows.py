"""The finished rows of a table: one line of JSON each, in `FOLDER/TABLE.jsonl`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distvae.files.paths import atomic_file, make_folder
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import finite, parse_json, require_regular_file

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
    """The first digits of the commit, '-' if the program was installed without its history."""
    seconds: float | None
    epochs: int | None
    figures: Mapping[str, float]
    """The metrics that are numbers."""
    all_figures: Mapping[str, object]
    """All metrics, including lists by epoch and null."""
    published: Mapping[str, float]
    published_spread: Mapping[str, float]
    """Standard deviation of published metrics over runs, where known."""
    note: str
    section: str
    config: Mapping[str, object]
    content: Mapping[str, object]
    """The whole content of the row."""


@dataclass(frozen=True)
class RowGroup:
    """The seeds of one row, at the largest scale on which it was trained."""

    name: str
    rows: tuple[ResultRow, ...]

    def values(self, figure: str) -> list[float]:
        """Return a metric of each seed that has it."""
        return [row.figures[figure] for row in self.rows if figure in row.figures]

    def published(self, figure: str) -> float | None:
        """Return the published value of a metric."""
        return self.rows[0].published.get(figure)

    def published_spread(self, figure: str) -> float:
        """Return the standard deviation of a published metric, 0 if unknown."""
        return self.rows[0].published_spread.get(figure, 0.0)

    @property
    def scale(self) -> str:
        """The scale of the seeds, '' if the row is not in a reproduced table."""
        return self.rows[0].scale

    @property
    def note(self) -> str:
        """The note of the row, without a full stop."""
        return self.rows[0].note

    @property
    def section(self) -> str:
        """The heading of the table that shows the row, '' for the first table of the page."""
        return self.rows[0].section

    @property
    def commits(self) -> str:
        """The commits that made the seeds."""
        return " ".join(sorted({row.commit for row in self.rows}))


def write_row(folder: Path, content: Mapping[str, object], force: bool) -> None:
    """Write a row. Raise `Refusal` if it exists and `force` is not set."""
    table, name = str(content["table"]), str(content["row"])
    if Path(table).name != table or table in ("", ".."):
        raise Refusal(f"{shown(table)} names no table; the name of a file without folders expected")
    path = table_file(folder, table)
    rows = {row.name: row.content for row in read_rows(folder, table)}
    if name in rows and not force:
        raise Refusal(f"{path}: has a row {name}; --force replaces it")
    rows[name] = content
    lines = [json.dumps(finite(rows[key])) for key in sorted(rows)]
    make_folder(folder)
    with atomic_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


def table_file(folder: Path, table: str) -> Path:
    """Return the file with the rows of a table."""
    return folder / f"{table}.jsonl"


def read_rows(folder: Path, table: str) -> list[ResultRow]:
    """Return the finished rows of a table, sorted by name; none without a file."""
    path = table_file(folder, table)
    if not path.exists():
        return []
    require_regular_file(path, "rows of results")
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    return [_read_row(line, f"{path}: line {number}") for number, line in lines]


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
"""Defaults of the optional fields of a row."""
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


def _read_row(line: str, where: str) -> ResultRow:
    """Read a row. Raise `Refusal` for a damaged line."""
    given = parse_json(line, where)
    content = {**_OPTIONAL, **given}
    for name, kind in _KINDS.items():
        if not isinstance(content.get(name, ...), kind):
            raise Refusal(
                f"{where}: damaged: '{name}' is missing or of the wrong type; a row as written by "
                "'distvae reproduce' expected"
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
        content=given,
    )


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Return the values that are finite numbers, without lists by epoch, null, and NaN."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
