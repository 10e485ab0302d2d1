"""Rows drawn as pictures (height, width, channels), or as curves (values, channels) like sounds."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from distvae.numerics.array_types import Floats
from distvae.tasks.pictures import cells
from distvae.tasks.pictures.canvas import GREY, PALETTE, entitle, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 8


def pairs(originals: Floats, reconstructions: Floats, title: str) -> "Figure":
    """Draw each picture above its reconstruction, or each curve under it."""
    if originals.ndim == 3:
        return _waves({"original": originals, "reconstruction": reconstructions}, title)
    columns = min(12, len(originals))
    starts = range(0, len(originals), columns)
    bands = []
    for start in starts:
        for part in (originals, reconstructions):
            bands.append(_tiles(part[start : start + columns], columns))
    heading = f"{title}: originals above reconstructions"
    return _canvas(np.concatenate(bands), limits(originals), heading)


def grid(points: Floats, title: str) -> "Figure":
    """Draw rows (count, ...) side by side."""
    if points.ndim == 3:
        return _waves({"draw": points}, title)
    return _canvas(_tiles(points, math.ceil(math.sqrt(len(points)))), limits(points), title)


def strips(frames: Floats, rows: Sequence[str], columns: Sequence[str], title: str) -> "Figure":
    """Draw a table of pictures (rows, columns, height, width, channels), rows and columns named."""
    down, across, height, width, _ = frames.shape
    tiled = _tiles(frames.reshape(down * across, *frames.shape[2:]), across)
    tall, named = 0.75 * height / width, 0.08 * max(map(len, rows))
    figure = new_figure(0.75 * across + named + 0.2, tall * down + 0.6)
    axes = figure.subplots()
    _show_picture(axes, tiled, limits(frames))
    axes.spines[:].set_visible(False)
    axes.tick_params(
        length=0, labelsize=8, top=False, labeltop=True, bottom=False, labelbottom=False
    )
    axes.set_xticks(np.arange(across) * (width + 1) + (width + 1) / 2, columns)
    axes.set_yticks(np.arange(down) * (height + 1) + (height + 1) / 2, rows)
    entitle(figure, title)
    return figure


def fields(changes: Floats, names: Sequence[str], title: str) -> "Figure":
    """Draw the change that each single value of the code makes to a row, under the value's name."""
    columns = min(COLUMNS, len(changes))
    figure = new_figure(max(1.1 * columns, 4.0), 1.35 * math.ceil(len(changes) / columns) + 0.5)
    axes = figure.subplots()
    if changes.ndim == 3:
        _curves(axes, [changes], [PALETTE[0]], columns, names)
    else:
        edges = np.abs(changes).max((1, 2, 3)).astype(float)
        shown = changes / np.where(edges, edges, 1.0)[:, None, None, None]
        cells.images(
            axes, shown, columns, names, [f"\N{PLUS-MINUS SIGN}{edge:.2g}" for edge in edges]
        )
    entitle(figure, title)
    return figure


def limits(points: Floats) -> tuple[float, float]:
    """Return the values of black and white: 0 and 1, or the range without the extreme values."""
    low, high = (float(edge) for edge in np.nanquantile(points, (0.002, 0.998)))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _curves(
    axes: "Axes",
    layers: Sequence[Floats],
    colours: Sequence[str],
    columns: int,
    names: Sequence[str] = (),
) -> None:
    """Draw layers of curves (count, values, channels) over each other, in cells."""
    single = [layer[..., channel] for layer in layers for channel in range(layer.shape[-1])]
    shades = [
        [colour] * len(layer)
        for layer, colour in zip(layers, colours, strict=True)
        for _ in range(layer.shape[-1])
    ]
    cells.curves(axes, single, shades, columns, (0, layers[0].shape[1] - 1), names)
    axes.set_xlabel("index")


def _waves(layers: Mapping[str, Floats], title: str) -> "Figure":
    """Draw layers of curves (count, values, channels) over each other; the first is grey."""
    from matplotlib.lines import Line2D

    points = list(layers.values())
    columns = min(6, len(points[0]))
    figure = new_figure(1.6 * columns + 0.6, 1.1 * math.ceil(len(points[0]) / columns) + 0.9)
    axes, colours = figure.subplots(), (GREY, PALETTE[0])[-len(layers) :]
    _curves(axes, points, colours, columns)
    entitle(figure, title)
    if len(layers) > 1:
        lines = [Line2D([], [], color=colour) for colour in colours]
        figure.legend(lines, list(layers), loc="outside lower right", ncols=2, frameon=False)
    return figure


def _tiles(pictures: Floats, columns: int) -> Floats:
    """Return pictures (count, height, width, channels) as one picture, with NaN in the gaps."""
    count, height, width, channels = pictures.shape
    rows = math.ceil(count / columns)
    padded = np.full((rows * columns, height + 1, width + 1, channels), np.nan, np.float32)
    padded[:count, 1:, 1:] = pictures
    tiled = padded.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    return tiled.reshape(rows * (height + 1), columns * (width + 1), channels)


def _canvas(tiled: Floats, span: tuple[float, float], title: str) -> "Figure":
    height, width, _ = tiled.shape
    figure = new_figure(8.0, 8.0 * height / width + 0.5)
    axes = figure.subplots()
    _show_picture(axes, tiled, span)
    axes.set_axis_off()
    entitle(figure, title)
    return figure


def _show_picture(axes: "Axes", tiled: Floats, span: tuple[float, float]) -> None:
    """Draw a picture (height, width, channels) in which NaN is white."""
    low, high = span
    if tiled.shape[-1] == 3:
        shown = np.where(np.isnan(tiled), 1.0, ((tiled - low) / (high - low or 1)).clip(0, 1))
        axes.imshow(shown, interpolation="nearest")
    else:
        axes.imshow(tiled.mean(-1), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
