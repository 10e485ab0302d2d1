"""Scatter plots of two figures of many runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from distvae.tasks.pictures.canvas import PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vPX"


def tradeoff(rows: Sequence[Mapping[str, float | str]], x: str, y: str, label: str) -> "Figure":
    """Plot two figures of each row, with a colour and marker for each value of `label`."""
    figure = new_figure(7.5, 5.0)
    axes = figure.subplots()
    for i, group in enumerate(dict.fromkeys(str(row[label]) for row in rows)):
        members = [row for row in rows if str(row[label]) == group]
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        across, up = [row[x] for row in members], [row[y] for row in members]
        axes.scatter(across, up, s=70, color=colour, marker=marker, edgecolors="white", label=group)
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    legend = figure.legend(loc="outside right upper", title=label, frameon=False)
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)
    return figure
