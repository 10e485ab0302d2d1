"""Figures, panels, colours and scales that all pictures share."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distvae.files.paths import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


Drawing = Callable[[], "Figure"]
"""A function of this package with its arguments (`functools.partial`), so that another process can
call it.
"""
Picture = tuple[str, Drawing]
"""The name of a picture, and the function that draws it."""

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
GREY = "#8c8c8c"


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the suffix."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def draw_now(drawing: Drawing, path: Path) -> None:
    """Draw a picture into a file."""
    save(drawing(), path)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, sized in inches, with automatic layout."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def entitle(figure: "Figure", title: str) -> None:
    """Write a title over a figure. Characters of file names are not read as formulas."""
    figure.suptitle(title.replace("$", r"\$"), wrap=True)


def panels(figure: "Figure", count: int, columns: int) -> list["Axes"]:
    """Return `count` axes, in rows of `columns`."""
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False)
    for place in range(count, axes.size):
        axes.flat[place].remove()
        axes.flat[place - columns].tick_params(labelbottom=True)
    return list(axes.flat[:count])


def colour_bar(
    axes: "Axes | Sequence[Axes]", mesh: "AxesImage | QuadMesh", label: str
) -> "Colorbar":
    """Draw the scale of the colours of an image."""
    figure = mesh.get_figure()
    assert figure is not None
    return figure.colorbar(mesh, ax=axes, label=label)


def second_axis(axes: "Axes", across: Sequence[float], values: Sequence[float], label: str) -> None:
    """Draw a thin grey curve with its own scale on the right, from zero."""
    other = axes.twinx()
    other.plot(across, values, color=GREY, linewidth=1)
    other.set_ylabel(label, color=GREY)
    other.tick_params(axis="y", colors=GREY)
    other.set_ylim(bottom=0)


def limit_to_later_epochs(axes: "Axes", curves: Iterable[Sequence[float]]) -> None:
    """Scale the axis to the later epochs, so that the steep first epochs do not hide them."""
    values = [value for curve in curves for value in curve if math.isfinite(value)]
    if values:
        low, high = float(np.quantile(values, 0.1)), max(values)
        span = high - low or 1
        axes.set_ylim(low - 0.05 * span, high + 0.1 * span)
