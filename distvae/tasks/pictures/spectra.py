"""Spectrograms of speech."""

from typing import TYPE_CHECKING

import numpy as np

from distvae.config.values import POWER_FLOOR
from distvae.tasks.pictures.canvas import Array, colour_bar, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Extent = tuple[float, float, float, float]
RANGE_DB = 80.0
"""The range of a spectrogram below the loudest bin."""


def decibel(power: Array) -> Array:
    """Return power in dB, with the floor that models use."""
    return 10 * np.log10(np.maximum(power, POWER_FLOOR))


def spectrograms(
    original: Array, reconstruction: Array, rate: int, hop: int, title: str
) -> "Figure":
    """Draw power (frames, bins) of a recording, of its reconstruction, and their difference."""
    figure = new_figure(9.0, 8.0)
    rows = figure.subplots(3, 1, sharex=True, sharey=True)
    high = float(decibel(original).max())
    above, below = (
        np.clip(decibel(power), high - RANGE_DB, high) for power in (original, reconstruction)
    )
    extent = (0.0, len(original) * hop / rate, 0.0, rate / 2000)
    _spectrogram(rows[0], above, extent, "magma", (high - RANGE_DB, high))
    _spectrogram(rows[1], below, extent, "magma", (high - RANGE_DB, high))
    _spectrogram(rows[2], below - above, extent, "RdBu_r", (-30.0, 30.0))
    names = ("original", "reconstruction", "reconstruction less original")
    for axes, name in zip(rows, names, strict=True):
        axes.set_title(name)
    rows[2].set_xlabel("time, s")
    figure.suptitle(title)
    return figure


def sampled_frames(power: Array, rate: int, title: str) -> "Figure":
    """Draw decoded frames (count, bins) side by side; they have no order in time."""
    figure = new_figure(8.0, 4.0)
    axes = figure.subplots()
    high = float(decibel(power).max())
    extent = (-0.5, len(power) - 0.5, 0.0, rate / 2000)
    _spectrogram(axes, decibel(power), extent, "magma", (high - RANGE_DB, high))
    axes.set(xlabel="sample", title=title)
    return figure


def _spectrogram(
    axes: "Axes", shown: Array, extent: Extent, colours: str, limits: tuple[float, float]
) -> None:
    """Draw frames (count, bins) over frequency in kHz, with a colour bar in dB."""
    low, high = limits
    mesh = axes.imshow(
        shown.T, cmap=colours, vmin=low, vmax=high, origin="lower", aspect="auto", extent=extent
    )
    mesh.set_interpolation("nearest" if len(shown) < axes.figure.bbox.width / 4 else "antialiased")
    axes.set_ylabel("frequency, kHz")
    colour_bar(axes, mesh, "dB")
