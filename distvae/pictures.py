"""Pictures of what a model learned. Each function returns a matplotlib figure; `save` writes it whole or not at all.

Colours are Okabe and Ito's and perceptually even maps, so that nothing rests on telling red from green.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distvae.output import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Array = NDArray[np.floating]
Extent = tuple[float, float, float, float]

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = "osD^vPX"
GREY = "#8c8c8c"
CURVES = {
    "train_objective": "objective, training",
    "val_objective": "objective, validation",
    "val_bound": "bound, validation",
}
RANGE_DB = 80.0
"""How far below the loudest bin a spectrogram reaches."""


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as its suffix says."""
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=130)


def decibel(power: Array) -> Array:
    """10 log10 of power, floored at what digital silence is taken for."""
    return 10 * np.log10(np.maximum(power, 1e-10))


def spectrograms(original: Array, reconstruction: Array, rate: int, hop: int, title: str) -> "Figure":
    """Power (frames, bins) of a recording, of its reconstruction, and how they differ."""
    figure = _figure(9.0, 8.0)
    panels = figure.subplots(3, 1, sharex=True, sharey=True)
    high = float(decibel(original).max())
    above, below = (np.clip(decibel(power), high - RANGE_DB, high) for power in (original, reconstruction))
    extent = (0.0, len(original) * hop / rate, 0.0, rate / 2000)
    _spectrogram(panels[0], above, extent, "magma", (high - RANGE_DB, high))
    _spectrogram(panels[1], below, extent, "magma", (high - RANGE_DB, high))
    _spectrogram(panels[2], below - above, extent, "RdBu_r", (-30.0, 30.0))
    for axes, name in zip(panels, ("original", "reconstruction", "reconstruction less original"), strict=True):
        axes.set_title(name)
    panels[2].set_xlabel("time, s")
    figure.suptitle(title)
    return figure


def sampled_frames(power: Array, rate: int, title: str) -> "Figure":
    """Decoded frames (count, bins) side by side; they have no order in time."""
    figure = _figure(8.0, 4.0)
    axes = figure.subplots()
    high = float(decibel(power).max())
    extent = (-0.5, len(power) - 0.5, 0.0, rate / 2000)
    _spectrogram(axes, decibel(power), extent, "magma", (high - RANGE_DB, high))
    axes.set(xlabel="sample", title=title)
    return figure


def dictionary(matrix: Array, title: str) -> "Figure":
    """The columns (values, atoms) of a dictionary."""
    figure = _figure(2.5 + matrix.shape[1] * 0.09, 2.0 + matrix.shape[0] * 0.07)
    axes = figure.subplots()
    _diverging(axes, matrix, "entry")
    axes.set(xlabel="atom", ylabel="value of z", title=title)
    return figure


def responses(change: Array, names: Sequence[str], live: NDArray[np.bool_], rate: int, title: str) -> "Figure":
    """What each atom alone does to the decoded spectrum: a change in dB (atoms, bins) over frequency."""
    columns = min(8, len(change))
    rows = math.ceil(len(change) / columns)
    figure = _figure(1.3 * columns + 1, rows + 1.2)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    frequency = np.linspace(0, rate / 2000, change.shape[1])
    for axes in grid.flat[len(change) :]:
        axes.set_axis_off()
    for axes, curve, name, lives in zip(grid.flat, change, names, live, strict=False):
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.plot(frequency, curve, color=PALETTE[0] if lives else GREY, linewidth=0.9)
        axes.set_title(name, fontsize=8, loc="left", pad=2)
        axes.tick_params(labelsize=8)
    figure.supxlabel("frequency, kHz", fontsize=10)
    figure.supylabel("change, dB", fontsize=10)
    figure.suptitle(title)
    return figure


def image_responses(change: Array, title: str) -> "Figure":
    """What each atom alone does to the decoded image: a change (atoms, pixels)."""
    canvas = _tiles(change, min(8, len(change)))
    figure = _figure(8.0, 7.0 * canvas.shape[0] / canvas.shape[1] + 0.8)
    axes = figure.subplots()
    _diverging(axes, canvas, "change of a pixel")
    axes.set_axis_off()
    figure.suptitle(title)
    return figure


def code_histograms(codes: Array, live: NDArray[np.bool_], title: str) -> "Figure":
    """The distribution of each value of the code (rows, atoms), strongest first, beside its strength."""
    strength = np.sqrt(np.mean(codes**2, axis=0))
    rank = np.argsort(-strength)
    figure = _figure(9.0, 3.0 + 0.06 * len(rank))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 3))
    left.barh(np.arange(len(rank)), strength[rank], color=[PALETTE[0] if live[a] else GREY for a in rank])
    left.set(xlabel="root mean square", ylabel="value of the code, strongest first")
    left.set_title(f"{int(live.sum())} live, {int((~live).sum())} dead")
    _distribution(right, codes[:, rank])
    figure.suptitle(title)
    return figure


def _distribution(axes: "Axes", codes: Array) -> None:
    """One row of shades for each column: the share of the code's rows in each of 81 cells, on a logarithmic scale."""
    edge = float(np.quantile(np.abs(codes), 0.999)) or 1.0
    cells = np.linspace(-edge, edge, 82)
    share = np.stack([np.histogram(column, cells)[0] for column in codes.T]) / len(codes)
    shown = np.log10(np.maximum(share, 1e-4))
    extent = (-edge, edge, codes.shape[1] - 0.5, -0.5)
    mesh = axes.imshow(shown, aspect="auto", extent=extent, cmap="cividis", vmin=-3, vmax=0, interpolation="nearest")
    bar = _bar(axes, mesh, "share of data points")
    bar.set_ticks([-3, -2, -1, 0], labels=["0.1 %", "1 %", "10 %", "100 %"])
    axes.set(xlabel="value", title="distribution")


def learning_curves(epochs: Sequence[Mapping[str, float]], unit: str, title: str) -> "Figure":
    """Objective and bound over epochs, and the learning rate on a second axis."""
    figure = _figure(7.5, 4.5)
    axes = figure.subplots()
    number = [record["epoch"] for record in epochs]
    curves = {name: [record.get(name, math.nan) for record in epochs] for name in CURVES}
    for (name, values), colour, style in zip(curves.items(), PALETTE, ("-", "--", ":"), strict=False):
        axes.plot(number, values, color=colour, linestyle=style, linewidth=1.8, label=CURVES[name])
    _zoom(axes, curves.values())
    axes.set(xlabel="epoch", ylabel=f"nats per {unit}", title=title)
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    _second_axis(axes, number, [record.get("rate", math.nan) for record in epochs], "learning rate")
    return figure


def tradeoff(rows: Sequence[Mapping[str, Any]], x: str, y: str, label: str) -> "Figure":
    """Two figures of each row against each other, one colour and marker for each value of `label`."""
    figure = _figure(7.5, 5.0)
    axes = figure.subplots()
    for i, group in enumerate(dict.fromkeys(str(row[label]) for row in rows)):
        members = [row for row in rows if str(row[label]) == group]
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        across, up = [row[x] for row in members], [row[y] for row in members]
        axes.scatter(across, up, s=70, color=colour, marker=marker, edgecolors="white", label=group)
    axes.set(xlabel=x, ylabel=y, title=f"{y} against {x}")
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", title=label, frameon=False)
    return figure


def image_pairs(originals: Array, reconstructions: Array, title: str) -> "Figure":
    """Images (count, pixels), each above its reconstruction."""
    columns = min(12, len(originals))
    starts = range(0, len(originals), columns)
    bands = [_tiles(part[i : i + columns], columns) for i in starts for part in (originals, reconstructions)]
    return _images(np.concatenate(bands), title)


def image_grid(images: Array, title: str) -> "Figure":
    """Images (count, pixels) in a grid."""
    return _images(_tiles(images, math.ceil(math.sqrt(len(images)))), title)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _spectrogram(axes: "Axes", shown: Array, extent: Extent, colours: str, limits: tuple[float, float]) -> None:
    """Frames (count, bins) over frequency in kHz, with a colour bar in dB."""
    low, high = limits
    mesh = axes.imshow(shown.T, cmap=colours, vmin=low, vmax=high, origin="lower", aspect="auto", extent=extent)
    mesh.set_interpolation("nearest" if len(shown) < axes.figure.bbox.width / 4 else "antialiased")
    axes.set_ylabel("frequency, kHz")
    _bar(axes, mesh, "dB")


def _diverging(axes: "Axes", matrix: Array, label: str) -> None:
    """A matrix of either sign: zero is white, and what is between tiles grey."""
    import matplotlib

    edge = float(np.nanquantile(np.abs(matrix), 0.995)) or 1.0
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#bbbbbb")
    mesh = axes.imshow(matrix, aspect="auto", cmap=colours, vmin=-edge, vmax=edge, interpolation="nearest")
    _bar(axes, mesh, label)


def _bar(axes: "Axes", mesh: "AxesImage", label: str) -> "Colorbar":
    figure = axes.get_figure()
    assert figure is not None
    return figure.colorbar(mesh, ax=axes, label=label)


def _second_axis(axes: "Axes", across: Sequence[float], values: Sequence[float], label: str) -> None:
    """A thin grey curve with a scale of its own, from zero, on the right."""
    other = axes.twinx()
    other.plot(across, values, color=GREY, linewidth=1)
    other.set_ylabel(label, color=GREY)
    other.tick_params(axis="y", colors=GREY)
    other.set_ylim(bottom=0)


def _zoom(axes: "Axes", curves: Iterable[Sequence[float]]) -> None:
    """Leave the plunge of the first epochs below the axis, so that the rest can be read."""
    values = [v for curve in curves for v in curve if math.isfinite(v)]
    if values:
        low, high = float(np.quantile(values, 0.1)), max(values)
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.1 * (high - low or 1))


def _tiles(images: Array, columns: int) -> Array:
    """Images (count, pixels) side by side, a light gap between them."""
    height = _height(images.shape[1])
    rows = math.ceil(len(images) / columns)
    padded = np.full((rows * columns, height + 1, images.shape[1] // height + 1), np.nan, np.float32)
    padded[: len(images), 1:, 1:] = images.reshape(len(images), height, -1)
    grid = padded.reshape(rows, columns, *padded.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * padded.shape[1], -1)


def _height(pixels: int) -> int:
    """The side of a square image, or of the flattest rectangle nearest to one."""
    return next(side for side in range(math.isqrt(pixels), 0, -1) if pixels % side == 0)


def _images(canvas: Array, title: str) -> "Figure":
    height, width = canvas.shape
    figure = _figure(8.0, 8.0 * height / width + 0.5)
    axes = figure.subplots()
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
    return figure
