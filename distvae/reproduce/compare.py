"""What was obtained beside what was published: a line for each row and figure."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from distvae.files.output import atomic_file, make_folder
from distvae.report.results.figures import half_range
from distvae.report.results.rows import RowGroup, group_seeds, read_rows
from distvae.reproduce.table import Table

if TYPE_CHECKING:
    from rich.table import Table as Grid

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class Line:
    """One figure of one row."""

    row: str
    figure: str
    published: float | None
    obtained: float | None
    """The mean over seeds."""
    spread: float | None
    """Half the range over seeds, where there are several."""
    seeds: int = 0
    scale: str = ""
    epochs: int | None = None
    seconds: float | None = None
    """Of one seed."""
    commit: str = ""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Obtained less published."""
        return (
            None
            if self.obtained is None or self.published is None
            else self.obtained - self.published
        )


def compare_rows(table: Table, folder: Path) -> list[Line]:
    """The rows of a table in its order: what files of finished ones say, and what was published."""
    groups = group_seeds(read_rows(folder, table.name))
    return [
        line
        for entry in table.entries
        for line in _lines(table, entry.name, entry.published, groups)
    ]


def _lines(table: Table, name: str, published: Any, groups: dict[str, RowGroup]) -> Iterator[Line]:
    group = groups.get(name)
    figures = dict.fromkeys(
        [*(published or table.metrics), *(list(table.metrics) if group else [])]
    )
    for figure in figures:
        values = group.values(figure) if group else []
        if not values and figure not in published:
            continue
        line = Line(name, figure, published.get(figure), None, None)
        if group and values:
            times = [row.seconds for row in group.rows if row.seconds is not None]
            line = Line(
                name,
                figure,
                published.get(figure),
                fmean(values),
                half_range(values) if len(values) > 1 else None,
                seeds=len(values),
                scale=group.scale,
                epochs=group.rows[0].epochs,
                seconds=fmean(times) if times else None,
                commit=group.commits,
                note=group.note,
            )
        yield line


def write_comparison(lines: list[Line], folder: Path) -> Path:
    """Keep the comparison for programs."""
    make_folder(folder)
    with atomic_file(folder / COMPARISON) as path:
        told = [asdict(line) | {"difference": line.difference} for line in lines]
        path.write_text(json.dumps(told, indent=1) + "\n")
    return folder / COMPARISON


def comparison_table(lines: list[Line]) -> "Grid":
    """The comparison for a person."""
    from rich.table import Table as Grid

    table = Grid(box=None, header_style="bold", padding=(0, 1))
    for name in ("row", "figure"):
        table.add_column(name, no_wrap=True)
    for name in (
        "published",
        "obtained",
        "difference",
        "seeds",
        "epochs",
        "time",
        "scale",
        "commit",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(line.row, line.figure, *_cells(line))
    return table


def _cells(line: Line) -> list[str]:
    from distvae.train.progress import format_duration

    def told(value: float | None, form: str = ".3f") -> str:
        return "" if value is None else f"{value:{form}}"

    obtained = told(line.obtained) + (f" ± {line.spread:.3f}" if line.spread is not None else "")
    counts = [str(line.seeds or ""), "" if line.epochs is None else str(line.epochs)]
    time = "" if line.seconds is None else format_duration(line.seconds)
    return [
        told(line.published, "g"),
        obtained,
        told(line.difference, "+.3f"),
        *counts,
        time,
        line.scale,
        line.commit,
    ]
