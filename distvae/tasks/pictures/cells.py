"""Many small diagrams in one pair of axes. Separate axes would take 50 ms each to draw."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distvae.numerics.array_types import Floats
from distvae.tasks.pictures.canvas import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 0.9, 0.72
"""Size of a curve in its cell. The rest of the cell holds the name and the spacing."""


def corners(count: int, columns: int) -> tuple[Floats, Floats]:
    """Return the left and lower edges of the cells, which run in rows from the top left."""
    place = np.arange(count)
    return (place % columns).astype(float), -(place // columns).astype(float)


def curves(
    axes: "Axes",
    layers: Sequence[Floats],
    colours: Sequence[Sequence[str]],
    columns: int,
    ends: tuple[float, float],
    names: Sequence[str] = (),
) -> None:
    """Draw layers of curves (count, values), one curve of each layer in every cell.

    All curves share the vertical scale, and a horizontal scale from `ends[0]` to `ends[1]`. A
    missing value (NaN) leaves a gap.
    """
    from matplotlib.collections import LineCollection

    low, high = _range(layers)
    scale = HEIGHT / (high - low or 1.0)
    left, below = corners(len(layers[0]), columns)
    for layer, shades in zip(layers, colours, strict=True):
        x = left[:, None] + WIDTH * np.linspace(0, 1, layer.shape[1])
        y = below[:, None] + scale * (layer - low)
        lines = list(np.stack([x, y], -1))
        axes.add_collection(LineCollection(lines, colors=list(shades), linewidths=0.9))
    if low < 0 < high:
        axes.hlines(below - scale * low, left, left + WIDTH, color=GREY, linewidth=0.5, zorder=1)
    for x, y, name in zip(left, below, names, strict=False):
        axes.text(x, y + HEIGHT + 0.02, name, fontsize=8, va="bottom")
    _ticks(axes, left, below, scale, (low, high), ends)


def _range(layers: Sequence[Floats]) -> tuple[float, float]:
    """Return the smallest and the largest value that is not missing, or 0 and 1 without values."""
    seen = np.concatenate([layer[~np.isnan(layer)] for layer in layers])
    return (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)


def _ticks(
    axes: "Axes",
    left: Floats,
    below: Floats,
    scale: float,
    span: tuple[float, float],
    ends: tuple[float, float],
) -> None:
    """Label the ends of both scales, at the first column and below the last row."""
    columns, rows = np.unique(left), np.unique(below)
    low, high = span
    axes.set(xlim=(-0.05, columns.max() + 1), ylim=(rows.min() - 0.1, 1.0))
    last_labels = [f"{ends[1]:g}"] * len(columns)
    axes.set_xticks([0.0, *columns + WIDTH], [f"{ends[0]:g}", *last_labels], fontsize=7)
    values = [value for value in (low, 0.0, high) if low <= value <= high]
    if len(values) == 3:
        values.remove(min(span, key=abs))  # its label would cover the label of zero
    places, labels = [], []
    for row in rows:
        for value in dict.fromkeys(values):
            places.append(row + scale * (value - low))
            labels.append(f"{value:.2g}")
    axes.set_yticks(places, labels, fontsize=7)
    axes.tick_params(length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def images(
    axes: "Axes", shown: Floats, columns: int, names: Sequence[str], notes: Sequence[str]
) -> None:
    """Draw pictures (count, height, width, channels) of values from -1 to 1.

    Each picture has a name above and a note below.
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
