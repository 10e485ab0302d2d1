"""Many small diagrams in one pair of axes: each pair of Matplotlib's own would take a twentieth of
a second.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distvae.tasks.pictures.canvas import GREY, Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 0.9, 0.72
"""Of a curve in its cell; the rest is room for its name and the next one."""


def corners(count: int, columns: int) -> tuple[Array, Array]:
    """Where the cells begin, from the top left in rows: to the right, and upwards."""
    place = np.arange(count)
    return (place % columns).astype(float), -(place // columns).astype(float)


def curves(
    axes: "Axes",
    layers: Sequence[Array],
    colours: Sequence[Sequence[str]],
    columns: int,
    ends: tuple[float, float],
    names: Sequence[str] = (),
) -> None:
    """Layers of curves (count, values), one of each in every cell, all on one scale that spans
    `ends`.
    """
    from matplotlib.collections import LineCollection

    low, high = (
        min(float(layer.min()) for layer in layers),
        max(float(layer.max()) for layer in layers),
    )
    scale = HEIGHT / (high - low or 1.0)
    left, below = corners(len(layers[0]), columns)
    for layer, shades in zip(layers, colours, strict=True):
        x = left[:, None] + WIDTH * np.linspace(0, 1, layer.shape[1])
        y = below[:, None] + scale * (layer - low)
        axes.add_collection(
            LineCollection(list(np.stack([x, y], -1)), colors=list(shades), linewidths=0.9)
        )
    if low < 0 < high:
        axes.hlines(below - scale * low, left, left + WIDTH, color=GREY, linewidth=0.5, zorder=1)
    for x, y, name in zip(left, below, names, strict=False):
        axes.text(x, y + HEIGHT + 0.02, name, fontsize=8, va="bottom")
    _ticks(axes, left, below, scale, (low, high), ends)


def _ticks(
    axes: "Axes",
    left: Array,
    below: Array,
    scale: float,
    span: tuple[float, float],
    ends: tuple[float, float],
) -> None:
    """The ends of both scales, at the first column and below the last row."""
    columns, rows = np.unique(left), np.unique(below)
    axes.set(xlim=(-0.05, columns.max() + 1), ylim=(rows.min() - 0.1, 1.0))
    axes.set_xticks(
        [0.0, *columns + WIDTH], [f"{ends[0]:g}", *[f"{ends[1]:g}"] * len(columns)], fontsize=7
    )
    shown = [value for value in (span[0], 0.0, span[1]) if span[0] <= value <= span[1]]
    if len(shown) == 3:
        shown.remove(min(span, key=abs))  # whose label would cover that of zero
    upwards = [
        (row + scale * (value - span[0]), f"{value:.2g}")
        for row in rows
        for value in dict.fromkeys(shown)
    ]
    axes.set_yticks([place for place, _ in upwards], [label for _, label in upwards], fontsize=7)
    axes.tick_params(length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def images(
    axes: "Axes", shown: Array, columns: int, names: Sequence[str], notes: Sequence[str]
) -> None:
    """Pictures (count, height, width, channels) of values from -1 to 1, a name above each and a
    note below.
    """
    count, height, width, channels = shown.shape
    left, below = corners(count, columns)
    pad_x, pad_y = 1 + width // 8, 1 + math.ceil(0.6 * height)
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + pad_y), columns * (width + pad_x), channels), np.nan)
    for picture, x, y, name, note in zip(shown, left, -below, names, notes, strict=True):
        top, start = int(y) * (height + pad_y) + pad_y // 2, int(x) * (width + pad_x)
        canvas[top : top + height, start : start + width] = picture
        middle = start + (width - 1) / 2
        axes.text(middle, top - 0.7, name, fontsize=8, ha="center", va="bottom")
        axes.text(middle, top + height - 0.3, note, fontsize=7, ha="center", va="top")
    if channels == 3:
        axes.imshow(np.where(np.isnan(canvas), 1.0, 0.5 + canvas / 2), interpolation="nearest")
    else:
        axes.imshow(canvas.mean(-1), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_axis_off()
