"""Compare reproduced metrics with published metrics."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from distvae.files.paths import atomic_file, make_folder
from distvae.reproduce.rows import group_seeds, read_rows
from distvae.reproduce.table import Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable

COMPARISON = "comparison.json"
TEXT = ("row", "figure")
NUMBERS = ("published", "obtained", "difference", "seeds", "epochs", "time", "scale", "commit")
"""The columns of a comparison."""


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
    """Return the comparison as a table to print."""
    from rich.table import Table as RichTable

    table = RichTable(box=None, header_style="bold", padding=(0, 1))
    for name in TEXT:
        table.add_column(name, no_wrap=True)
    for name in NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(line.row, line.figure, *_cells(line))
    return table


def notes_on(lines: list[Line]) -> Iterator[str]:
    """Yield each note once, with the names of its rows."""
    rows: dict[str, dict[str, None]] = {}
    for line in lines:
        if line.note:
            rows.setdefault(line.note, {})[line.row] = None
    yield from (f"{', '.join(names)}: {note}" for note, names in rows.items())


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
