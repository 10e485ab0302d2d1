"""Spectrograms of speech, drawn by librosa, which is imported only here and only when drawing."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from distvae.config.values import POWER_FLOOR, FrequencyScale
from distvae.numerics.array_types import Floats
from distvae.tasks.pictures.canvas import colour_bar, entitle, new_figure

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
