"""Spectrograms of speech, drawn by librosa, and figures that compare a restoration with its input.

Librosa is imported only here and only when drawing.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from distvae.config.schema import POWER_FLOOR, FrequencyScale
from distvae.numerics.arrays import Floats
from distvae.tasks.pictures import colour_bar, entitle, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


RANGE_DB = 80.0
"""The range of a spectrogram below the loudest bin."""
DIFFERENCE_DB = 30.0
"""The range of a difference, in both directions."""
MEL_BANDS = 80
"""Bands of a spectrogram on the mel scale, where there are four times as many bins."""


class Spectrum(NamedTuple):
    """Axes of a spectrogram: sampling rate, samples between frames, frequencies."""

    rate: int
    hop: int
    scale: FrequencyScale = "linear"


def decibel(power: Floats) -> Floats:
    """Return power in dB, with the floor that models use."""
    return 10 * np.log10(np.maximum(power, POWER_FLOOR))


def levels(power: Floats, spectrum: Spectrum) -> Floats:
    """Return the levels in dB of power (frames, bins), in librosa's layout (bins, frames)."""
    if spectrum.scale != "mel":
        return decibel(power).T
    from librosa.feature import melspectrogram

    bands = max(1, min(MEL_BANDS, power.shape[1] // 4))
    return decibel(melspectrogram(S=power.T, sr=spectrum.rate, n_mels=bands))


def spectrograms(
    original: Floats, reconstruction: Floats, spectrum: Spectrum, title: str
) -> "Figure":
    """Draw power (frames, bins) of a recording, of its reconstruction, and their difference."""
    figure = new_figure(9.0, 8.0)
    rows = figure.subplots(3, 1, sharex=True, sharey=True)
    above, below = levels(original, spectrum), levels(reconstruction, spectrum)
    high = float(above.max())
    above, below = (np.clip(level, high - RANGE_DB, high) for level in (above, below))
    show_levels(rows[0], above, spectrum, high)
    show_levels(rows[1], below, spectrum, high)
    _show_spectrum(rows[2], below - above, spectrum, "RdBu_r", (-DIFFERENCE_DB, DIFFERENCE_DB))
    names = ("original", "reconstruction", "reconstruction less original")
    for axes, name in zip(rows, names, strict=True):
        axes.set_title(name)
        axes.label_outer()
    entitle(figure, title)
    return figure


def sampled_frames(power: Floats, rate: int, title: str) -> "Figure":
    """Draw decoded frames (count, bins) side by side; they have no order in time."""
    figure = new_figure(8.0, 4.0)
    axes = figure.subplots()
    level = decibel(power).T
    show_levels(axes, level, Spectrum(rate, hop=0), float(level.max()))
    axes.set(xlabel="sample")
    entitle(figure, title)
    return figure


def show_levels(axes: "Axes", level: Floats, spectrum: Spectrum, high: float) -> None:
    """Draw levels (bins or bands, frames) up to the highest, with a colour bar in dB."""
    _show_spectrum(axes, level, spectrum, "magma", (high - RANGE_DB, high))


def _show_spectrum(
    axes: "Axes", shown: Floats, spectrum: Spectrum, colours: str, limits: tuple[float, float]
) -> None:
    """Draw values over frequency, and over time if the frames are consecutive."""
    from librosa.display import specshow

    mesh = specshow(
        shown,
        sr=spectrum.rate,
        hop_length=spectrum.hop,
        x_axis="time" if spectrum.hop else None,
        y_axis=spectrum.scale,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        ax=axes,
    )
    if spectrum.hop:
        axes.set_xlabel("time (s)")
    colour_bar(axes, mesh, "dB")


def compare_pictures(panels: Mapping[str, Floats], spectrum: Floats | None = None) -> "Figure":
    """Draw pictures (height, width, channels) of values from 0 to 1 under their titles.

    Missing pixels are red. The power of the noise by frequency comes last, if it is given.
    """
    height, width = next(iter(panels.values())).shape[:2]
    widths = [5.0] * len(panels) + [2.5] * (spectrum is not None)
    figure = new_figure(sum(widths), 5 * height / width + 0.4)
    row = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    for axes, (title, values) in zip(row, panels.items(), strict=False):
        colours = np.broadcast_to(values, (*values.shape[:2], 3))
        missing = np.isnan(colours).all(-1, keepdims=True)
        shown = np.where(missing, (0.84, 0.37, 0.0), np.nan_to_num(colours).clip(0, 1))
        axes.imshow(shown, interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()
    if spectrum is not None:
        row[-1].imshow(spectrum, vmin=0, extent=(-0.5, 0.5, 0.5, -0.5))
        row[-1].set_anchor("N")
        row[-1].set(title="power of the noise", xlabel="cycles per pixel")
    return figure


def compare_sounds(panels: Mapping[str, Floats], rate: int) -> "Figure":
    """Draw spectrograms of sounds (samples, channels) below each other, on one scale.

    Channels are averaged.
    """
    figure = new_figure(9, 2.6 * len(panels))
    window = min(512, min(map(len, panels.values())))
    spectrum = Spectrum(rate, hop=max(1, window // 4))
    shown = {}
    for title, values in panels.items():
        frames = sliding_window_view(values.mean(-1), window)[:: spectrum.hop]
        power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window))))
        shown[title] = levels(power, spectrum)
    high = max(float(level.max()) for level in shown.values())
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, level) in zip(column, shown.items(), strict=True):
        show_levels(axes, level, spectrum, high)
        axes.set_title(title)
        axes.label_outer()
    return figure
