"""Find the missing values of a picture or sound: by a mask or a list of gaps, by a value that marks
them, or at random for a benchmark.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from distvae.config import PatchData
from distvae.data.pictures import PHOTOGRAPH, opened
from distvae.data.signals import PEAK, Signal, read_picture
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, one_line, require_regular_file
from distvae.numerics.array_types import Floats

Missing = NDArray[np.bool_]
Finder = Callable[[Signal], Missing]
"""A function that returns which values (..., channels) of a picture or sound are missing."""
COMMENTS = ("#", "\\")
"""How lines without a gap begin; Audacity writes the frequencies of a label after a backslash."""
LONGEST = 1e9
"""Seconds that no sound has: 30 years."""
EXPECTED = "the start and the end of a gap in seconds, such as '0.5 0.52', in each line"


def masked_by(path: Path) -> Finder:
    """Return a finder of the pixels that a mask marks, or of the samples in a list of gaps.

    A mask is a picture of the same size, and marks pixels that are neither black nor transparent.
    In a JPEG or WebP, whose compression brightens black, it marks pixels brighter than half.
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


def read_gaps(path: Path, rate: int, samples: int) -> NDArray[np.bool_]:
    """Return which samples of a sound are missing by a list of its gaps.

    A line has the start and the end of a gap in seconds. Words behind them are a label. A sample is
    missing if any part of it is in a gap.
    """
    missing = np.zeros(samples, bool)
    require_regular_file(path, EXPECTED)
    with decoding(path, EXPECTED):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith(COMMENTS):
            start, end = _read_gap(f"{path}, line {number}", line)
            if _place(start, rate) >= samples:
                raise Refusal(
                    f"{path}, line {number}: a gap from {start:g} s on in a sound of"
                    f" {samples / rate:g} s; gaps within the sound expected"
                )
            missing[math.floor(_place(start, rate)) : math.ceil(_place(end, rate))] = True
    return missing


def _place(seconds: float, rate: int) -> float:
    """Return a time in samples, without the error of the product."""
    return round(seconds * rate, 6)


def _read_gap(place: str, line: str) -> tuple[float, float]:
    """Return the start and the end of a gap."""
    try:
        start, end = map(float, line.split()[:2])
    except ValueError as error:
        raise Refusal(f"{place}: {one_line(line)!r}; {EXPECTED} expected") from error
    if not 0 <= start < end < LONGEST:
        raise Refusal(f"{place}: from {start:g} to {end:g}; {EXPECTED} expected")
    return start, end


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
    """Return a finder of pixels or samples whose channels all have a value. The value of a pixel is
    in the units of its file.
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
    """Return a sound with silence in place of missing samples."""
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
        gone: Missing = np.random.default_rng(config.noise_seed).random(shape) < begins
        for axis in range(len(places)):  # gaps begin at a value or just before it
            before = [(config.gap - 1, 0) if axis == k else (0, 0) for k in range(gone.ndim)]
            windows = sliding_window_view(np.pad(gone, before), config.gap, axis)
            gone = np.asarray(windows.any(-1))
        return np.broadcast_to(gone, signal.values.shape)

    return find
