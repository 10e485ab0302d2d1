"""What all pictures are drawn on and with."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distvae.files.output import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Array = NDArray[np.floating]

Picture = tuple[str, "Figure"]
"""A figure and its name."""

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
GREY = "#8c8c8c"


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as its suffix says."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches that arranges what is put into it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panels(figure: "Figure", count: int, columns: int) -> list["Axes"]:
    """So many axes in rows."""
    drawn = figure.subplots(math.ceil(count / columns), columns, squeeze=False)
    for place in range(count, drawn.size):
        drawn.flat[place].remove()
        drawn.flat[place - columns].tick_params(labelbottom=True)
    return list(drawn.flat[:count])


def colour_bar(axes: "Axes | Sequence[Axes]", mesh: "AxesImage", label: str) -> "Colorbar":
    """The scale of an image's colours."""
    figure = mesh.get_figure()
    assert figure is not None
    return figure.colorbar(mesh, ax=axes, label=label)


def second_axis(axes: "Axes", across: Sequence[float], values: Sequence[float], label: str) -> None:
    """A thin grey curve with a scale of its own, from zero, on the right."""
    other = axes.twinx()
    other.plot(across, values, color=GREY, linewidth=1)
    other.set_ylabel(label, color=GREY)
    other.tick_params(axis="y", colors=GREY)
    other.set_ylim(bottom=0)


def limit_to_later_epochs(axes: "Axes", curves: Iterable[Sequence[float]]) -> None:
    """Leave the plunge of the first epochs below the axis, so that the rest can be read."""
    values = [v for curve in curves for v in curve if math.isfinite(v)]
    if values:
        low, high = float(np.quantile(values, 0.1)), max(values)
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.1 * (high - low or 1))
