"""Find the missing values of a picture or sound: by a mask or a list of gaps, by a value that marks
them, or at random for a benchmark.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from distvae.config import PatchData
from distvae.data.picture_file import PHOTOGRAPH, opened
from distvae.data.signals import PEAK, Signal, read_picture
from distvae.data.windows.gaps import read_gaps
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Floats

Missing = NDArray[np.bool_]
Finder = Callable[[Signal], Missing]
"""A function of a picture or sound; returns which of its values (..., channels) are missing."""


def masked_by(path: Path) -> Finder:
    """Return a finder of values where a mask, a picture of the same size, is neither black nor
    transparent. In a JPEG or WebP, whose compression brightens what is black, it is to be brighter
    than half. The missing samples of a sound are in a list of its gaps.
    """

    def find(signal: Signal) -> Missing:
        if signal.rate is not None:
            gaps = read_gaps(path, signal.rate, len(signal.values))
            return np.broadcast_to(gaps[:, None], signal.values.shape)
        mask = read_mask(path)
        if mask.shape[:2] != signal.values.shape[:2]:
            sizes = [" x ".join(map(str, shape[:2])) for shape in (mask.shape, signal.values.shape)]
            raise Refusal(
                f"{path}: a mask of {sizes[0]} pixels; {sizes[1]} expected, as the picture has"
            )
        return np.broadcast_to(mask, signal.values.shape)

    return find


def read_mask(path: Path) -> Missing:
    """Return where a mask says that pixels are missing: (height, width, 1)."""
    picture = read_picture(path)
    black = PEAK / 2 if _is_lossy(path) else 0.0
    mask = np.asarray((picture.values > black).any(-1, keepdims=True))
    return mask if picture.alpha is None else mask & (picture.alpha[..., None] > 0)


def _is_lossy(path: Path) -> bool:
    """Return whether a picture is compressed as JPEG or WebP, whatever its name says."""
    with opened(path) as image:
        return image.format in ("JPEG", PHOTOGRAPH, "WEBP")


def marked_by(value: float) -> Finder:
    """Return a finder of pixels of which all channels have a value, in the units of the file, or of
    samples that have it.
    """

    def find(signal: Signal) -> Missing:
        step = signal.step if signal.rate is None else 0.0
        wanted = value * (step or 1.0)
        same = np.isclose(signal.values, wanted, atol=step / 4, equal_nan=True)
        return np.broadcast_to(same.all(-1, keepdims=True), signal.values.shape)

    return find


def keep_observed(observed: Floats, restored: Floats) -> Floats:
    """Return a restoration that keeps the observed values if any are missing."""
    missing = np.isnan(observed)
    return np.where(missing, restored, observed) if missing.any() else restored


def silenced(sound: Floats) -> Floats:
    """Return a sound as it is heard: silent where samples are missing."""
    return np.nan_to_num(sound, nan=0.0)


def drop_at_random(config: PatchData) -> Finder:
    """Return a finder that drops values at random: all channels of a pixel or sample together, or
    each value by itself, in gaps of some size that may overlap.
    """

    def find(signal: Signal) -> Missing:
        *places, channels = signal.values.shape
        shape = (*places, channels if config.dropped == "values" else 1)
        begins = config.drop
        if config.gap > 1:  # a value is kept if no gap begins at any of gap^axes places
            begins = 1 - (1 - config.drop) ** (config.gap ** -len(places))
        gone = np.random.default_rng(config.noise_seed).random(shape) < begins
        for axis in range(len(places)):  # gaps begin at a value or just before it
            before = [(config.gap - 1, 0) if axis == k else (0, 0) for k in range(gone.ndim)]
            gone = sliding_window_view(np.pad(gone, before), config.gap, axis).any(-1)
        return np.broadcast_to(gone, signal.values.shape)

    return find
