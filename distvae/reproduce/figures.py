"""Draw the figures of a paper from finished rows, with the published values beside ours."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.reproduce.rows import RowGroup, group_seeds, read_rows
from distvae.reproduce.table import Figures, Table
from distvae.tasks.pictures import GREY, PALETTE, new_figure, panels, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLACE = "{}"
"""In the pattern of a line, the number in the names of its rows that is the horizontal axis."""
WIDTH, HEIGHT, LEGEND = 4.0, 3.6, 1.6
FEW = 3
"""An axis with at most this many values names each of them."""


@dataclass(frozen=True)
class Panel:
    """Values of a metric over rows."""

    title: str
    metric: str
    label: str
    """The name of the metric on the vertical axis."""
    lines: Mapping[str, str]
    """Names in the legend, each with the pattern of its rows. Without a place in the pattern, a
    line is the seeds of one row, and the rows stand side by side.
    """
    x: str = ""
    """The label of the horizontal axis."""


@dataclass(frozen=True)
class Line:
    """Values over the numbers in the names of rows, or over the number of the line itself."""

    name: str
    x: Sequence[float]
    y: Sequence[Sequence[float]]
    """The values of all seeds, for each number."""
    published: Mapping[float, float]


def draw_figures(table: Table, rows: Path, folder: Path) -> list[Path]:
    """Draw the figures of a table that have finished rows, and return their files."""
    files = []
    groups = group_seeds(read_rows(rows, table.name))
    quoted = {entry.name: entry.published for entry in table.entries}
    for name, drawn in table.figures.items():
        every = [(panel := Panel(**tree), lines_of(panel, groups, quoted)) for tree in drawn]
        found = [(panel, lines) for panel, lines in every if any(line.y for line in lines)]
        if not found:
            continue
        figure = new_figure(WIDTH * len(found) + LEGEND, HEIGHT)
        drawn_on = panels(figure, len(found), len(found))
        for axes, (panel, lines) in zip(drawn_on, found, strict=True):
            _draw(axes, panel, lines)
        labelled = drawn_on[0].get_legend_handles_labels()
        figure.legend(*labelled, loc="outside right upper", frameon=False, fontsize="small")
        path = folder / f"{table.name}-{name}.png"
        save(figure, path)
        files.append(path)
    return files


def lines_of(
    panel: Panel, groups: Mapping[str, RowGroup], quoted: Mapping[str, Figures]
) -> list[Line]:
    """Return the lines of a panel: ours, and the published values."""
    found = []
    for number, (name, pattern) in enumerate(panel.lines.items()):
        ours = _numbered(groups, pattern, number)
        values = {x: groups[row].values(panel.metric) for x, row in ours.items()}
        values = {x: seeds for x, seeds in sorted(values.items()) if seeds}
        known = _numbered(quoted, pattern, number).items()
        published = {
            x: quoted[row][panel.metric] for x, row in sorted(known) if panel.metric in quoted[row]
        }
        found.append(Line(name, list(values), list(values.values()), published))
    return found


def _numbered(names: Iterable[str], pattern: str, number: int) -> dict[float, str]:
    """Return the names that match a pattern, each by the number in its place, or by `number`."""
    before, place, after = pattern.partition(PLACE)
    if not place:
        return {float(number): pattern} if pattern in names else {}
    matches = re.compile(f"{re.escape(before)}([0-9.]+){re.escape(after)}").fullmatch
    return {float(match[1]): name for name in names if (match := matches(name))}


def _draw(axes: "Axes", panel: Panel, lines: Sequence[Line]) -> None:
    """Draw the lines of a panel: means, or the seeds of rows that stand side by side. Published
    values are crosses.
    """
    for colour, line in zip(cycle(PALETTE), lines, strict=False):
        if panel.x:
            places, values, style = line.x, [sum(seeds) / len(seeds) for seeds in line.y], "o-"
        else:
            places = [x for x, seeds in zip(line.x, line.y, strict=True) for _ in seeds]
            values, style = [value for seeds in line.y for value in seeds], "o"
        axes.plot(places, values, style, color=colour, label=line.name, markersize=4, alpha=0.7)
        published = line.published
        axes.plot(list(published), list(published.values()), "x--", color=colour, markersize=4)
    if any(line.published for line in lines):
        axes.plot([], [], "x--", color=GREY, label="published")
    numbers = sorted({x for line in lines for x in (*line.x, *line.published)})
    if not panel.x:
        axes.set_xticks([])
    elif len(numbers) <= FEW:
        axes.set_xticks(numbers)
    axes.set_title(panel.title, fontsize="medium")
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.label)
