"""Find the missing values of a picture: by a mask, by a value that marks them, or at random for a
benchmark.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distvae.data.picture_file import PHOTOGRAPH, opened
from distvae.data.signals import PEAK, Signal, read_picture
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Floats

Missing = NDArray[np.bool_]
Finder = Callable[[Signal], Missing]
"""A function of a picture; returns which of its values (height, width, channels) are missing."""


def masked_by(path: Path) -> Finder:
    """Return a finder of values where a mask, a picture of the same size, is neither black nor
    transparent. In a JPEG or WebP, whose compression brightens what is black, it is to be brighter
    than half.
    """

    def find(signal: Signal) -> Missing:
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
    """Return a finder of pixels of which all channels have a value, in the units of the file."""

    def find(signal: Signal) -> Missing:
        same = np.isclose(signal.values, value * signal.step, atol=signal.step / 4).all(
            -1, keepdims=True
        )
        return np.broadcast_to(same, signal.values.shape)

    return find


def keep_observed(observed: Floats, restored: Floats) -> Floats:
    """Return a restoration that keeps the observed values if any are missing."""
    missing = np.isnan(observed)
    return np.where(missing, restored, observed) if missing.any() else restored


def drop_at_random(share: float, seed: int, what: Literal["pixels", "values"]) -> Finder:
    """Return a finder that drops values at random: all channels of a pixel together, or each value
    by itself.
    """

    def find(signal: Signal) -> Missing:
        height, width, channels = signal.values.shape
        gone = (
            np.random.default_rng(seed).random((height, width, channels if what == "values" else 1))
            < share
        )
        return np.broadcast_to(gone, signal.values.shape)

    return find
