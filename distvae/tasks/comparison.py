"""Figures that show input, restoration and reference side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from distvae.numerics.array_types import Floats
from distvae.tasks.pictures import Spectrum, levels, show_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def compare_pictures(panels: Mapping[str, Floats], spectrum: Floats | None = None) -> "Figure":
    """Draw pictures (height, width, channels) of values from 0 to 1 under their titles.

    Missing pixels are red. The spectrum of the noise comes last, if it is given.
    """
    from matplotlib.figure import Figure

    height, width = next(iter(panels.values())).shape[:2]
    widths = [5.0] * len(panels) + [2.5] * (spectrum is not None)
    figure = Figure(figsize=(sum(widths), 5 * height / width + 0.4), layout="constrained")
    row = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    if spectrum is not None:
        show_spectrum(row[-1], spectrum)
    for axes, (title, values) in zip(row, panels.items(), strict=False):
        axes.imshow(_to_colours(values), interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()
    return figure


def show_spectrum(axes: "Axes", spectrum: Floats) -> None:
    """Draw the power of noise by frequency in both directions."""
    axes.imshow(spectrum, vmin=0, extent=(-0.5, 0.5, 0.5, -0.5))
    axes.set_anchor("N")
    axes.set_title("power of the noise")
    axes.set_xlabel("cycles per pixel")


def _to_colours(values: Floats) -> Floats:
    """Return red, green and blue from 0 to 1."""
    colours = np.broadcast_to(values, (*values.shape[:2], 3))
    missing = np.isnan(colours).all(-1, keepdims=True)
    return np.where(missing, (0.84, 0.37, 0.0), np.nan_to_num(colours).clip(0, 1))


def compare_sounds(panels: Mapping[str, Floats], rate: int) -> "Figure":
    """Draw spectrograms of sounds (samples, channels) below each other, on one scale.

    Channels are averaged.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6 * len(panels)), layout="constrained")
    window = min(512, min(map(len, panels.values())))
    spectrum = Spectrum(rate, hop=max(1, window // 4))
    shown = {
        title: levels(_power(values.mean(-1), window, spectrum.hop), spectrum)
        for title, values in panels.items()
    }
    high = max(float(level.max()) for level in shown.values())
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, level) in zip(column, shown.items(), strict=True):
        show_levels(axes, level, spectrum, high)
        axes.set_title(title)
        axes.label_outer()
    return figure


def _power(signal: Floats, window: int, hop: int) -> Floats:
    """Return the power (frames, bins) of a signal."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, window)[::hop]
    return np.square(np.abs(np.fft.rfft(frames * np.hanning(window))))
