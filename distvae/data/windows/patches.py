"""Cut an array into overlapping windows, one per row, and merge the windows into the array again.

Arrays have their channels last: (height, width, channels) of a picture, (samples, channels) of a
sound. Missing values are NaN.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.config import PatchData
from distvae.data.dataset import Array, Dataset
from distvae.data.signals import PEAK
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Doubles, Floats

BEFORE_CUTTING = ("noise", "snr", "drop", "dropped", "gap", "noise_seed", "rate", "excerpt")
"""Settings that change the values before they are cut. The rows show them, so a digest does not
include them.
"""


@dataclass(frozen=True)
class Grid:
    """The places of windows on an array."""

    shape: tuple[int, ...]
    """The shape of the array, channels last."""
    window: tuple[int, ...]
    stride: int = 1
    joint: bool = True
    """Whether a window spans all channels, or each channel has windows of its own."""

    def __post_init__(self) -> None:
        """Refuse windows that do not fit."""
        if len(self.window) != len(self.shape) - 1:
            wanted = "[height, width]" if len(self.shape) == 3 else "[samples]"
            raise Refusal(f"data.window: {list(self.window)}; {wanted} expected for this data")
        if any(w > n for w, n in zip(self.window, self.shape, strict=False)):
            size, window = (" x ".join(map(str, sides)) for sides in (self.shape[:-1], self.window))
            fitting = ",".join(map(str, map(min, self.shape, self.window)))
            raise Refusal(
                f"data.window: {window}, larger than the data's {size}; data.window=[{fitting}] or"
                " a smaller one expected"
            )
        if self.stride > min(self.window):
            raise Refusal(
                f"data.stride: {self.stride} leaves gaps; at most {min(self.window)}, the window,"
                " expected"
            )

    @classmethod
    def of(cls, shape: tuple[int, ...], config: PatchData) -> "Grid":
        """Return the windows that the settings place on an array of a shape."""
        return cls(shape, config.window, config.stride, config.channels == "joint")

    @cached_property
    def starts(self) -> tuple[NDArray[np.intp], ...]:
        """Return the start of each window along each axis: one per stride, and the last start."""
        ends = [n - w for n, w in zip(self.shape, self.window, strict=False)]
        return tuple(np.append(np.arange(0, end, self.stride), end) for end in ends)

    @property
    def rows(self) -> int:
        """Return the number of windows."""
        return math.prod(map(len, self.starts)) * self.shape[-1] // self.channels

    @property
    def channels(self) -> int:
        """Return the number of channels that a window spans."""
        return self.shape[-1] if self.joint else 1

    @property
    def dims(self) -> int:
        """Return the number of values of a window."""
        return math.prod(self.window) * self.channels

    def cut(self, array: Floats) -> Floats:
        """Return the windows (N, D) in the precision of the array. The windows of the channels at
        one place follow each other.
        """
        axes = tuple(range(len(self.window)))
        views = np.lib.stride_tricks.sliding_window_view(array, self.window, axes)
        return views[np.ix_(*self.starts)].reshape(self.rows, self.dims)

    def merge(self, rows: Floats, profile: Floats) -> Doubles:
        """Return the weighted mean of the windows that cover each value; the profile has the shape
        of a window.
        """
        windows = rows.reshape(*map(len, self.starts), self.shape[-1], *self.window)
        total, weight = np.zeros(self.shape), np.zeros(self.shape[:-1])
        for place in np.ndindex(*self.window):
            covered = np.ix_(*(start + i for start, i in zip(self.starts, place, strict=True)))
            total[covered] += profile[place] * windows[(..., *place)]
            weight[covered] += profile[place]
        return total / weight[..., None]


def profile(window: tuple[int, ...], merge: str) -> Doubles:
    """Return the weight of each value of a window: all equal, or a Gaussian with a deviation of a
    quarter of each side.
    """
    if merge == "mean":
        return np.ones(window)
    sides = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 4)) ** 2) for n in window)
    return np.asarray(reduce(np.multiply.outer, sides))


@dataclass(frozen=True)
class Patches:
    """The windows of one array, in the units a model is trained in."""

    grid: Grid
    profile: Doubles
    rows: Array
    """(N, D) with NaN where values are missing."""
    scale: float
    """The unit of the model, in units of the array."""
    shift: Doubles
    """(N, 1) the level that was subtracted from each row, in the units of the array."""
    copies: int = 1
    """Copies of each channel of the grid in the array."""

    @classmethod
    def of(cls, array: Floats, config: PatchData) -> "Patches":
        """Return the windows of an array, scaled and levelled as the configuration asks. All is
        computed in double precision.

        A window without observed values takes the mean of the whole array.
        """
        channels = array.shape[-1]
        array = distinct_channels(array.astype(np.float64))
        grid = Grid.of(array.shape, config)
        standard, remove = config.scale == "standard", config.level == "remove"
        scale = _scale(array, config)
        rows = grid.cut(array)
        shift = np.full((len(rows), 1), np.nanmean(array) if standard or remove else 0.0)
        if remove:
            observed = np.isfinite(rows)
            total = rows.sum(1, keepdims=True, where=observed)
            np.divide(
                total,
                observed.sum(1, keepdims=True),
                out=shift,
                where=observed.any(1, keepdims=True),
            )
        rows -= shift
        rows /= scale
        copies = channels // array.shape[-1]
        return cls(
            grid,
            profile(config.window, config.merge),
            rows.astype(np.float32),
            scale,
            shift,
            copies,
        )

    @property
    def unreached(self) -> int:
        """The number of pixels or samples that share no window with an observed value."""
        observed = np.isfinite(self.rows).any(1, keepdims=True)
        if observed.all():
            return 0
        windows = np.broadcast_to(observed.astype(np.float32), self.rows.shape)
        reached = self.grid.merge(windows, np.ones(self.grid.window)) > 0
        return int((~reached).any(-1).sum())

    def merged(self, rows: Array) -> Doubles:
        """Return the array of rows in the model's units."""
        level = np.broadcast_to(self.shift, rows.shape)
        array = self.grid.merge(rows, self.profile) * self.scale + self.grid.merge(
            level, self.profile
        )
        return array.repeat(self.copies, -1)

    def dataset(self, name: str, config: PatchData) -> Dataset:
        """Return the rows as a dataset. The same rows validate and test."""
        how = {key: value for key, value in asdict(config).items() if key not in BEFORE_CUTTING}
        facts = json.dumps([how | {"path": ""}, self.grid.shape])
        digest = hashlib.sha256(facts.encode() + self.rows.tobytes()).hexdigest()
        splits = dict.fromkeys(("train", "val", "test"), self.rows)
        shape = (self.grid.channels, *self.grid.window)
        return Dataset(
            name, "window", digest, splits, Path(config.path), shape=shape, scale=self.scale
        )


def _scale(array: Floats, config: PatchData) -> float:
    """Return the unit of the model, in units of an array."""
    if config.scale == "standard":
        return float(np.nanstd(array))
    if config.scale == "keep":
        return 1.0
    return PEAK if len(config.window) == 2 else float(np.nanmax(np.abs(array)))


def distinct_channels(array: Floats) -> Floats:
    """Return only the first channel if all channels repeat it, as in a grey picture stored in
    colour; otherwise the array.

    Repeated channels would count each value's noise several times, as if it were certain.
    """
    first = array[..., :1]
    return (
        first
        if np.array_equal(array, np.broadcast_to(first, array.shape), equal_nan=True)
        else array
    )


def refuse_constant(array: Floats, name: str) -> None:
    """Refuse data with a single observed value."""
    observed = array[np.isfinite(array)]
    if observed.size and observed.min() == observed.max():
        some = observed.size < array.size
        hint = ". A mask marks what is missing; it may be inverted" if some else ""
        raise Refusal(
            f"{name}: all {'observed ' if some else ''}values are {observed.min():g}; there is"
            f" nothing to learn from constant data{hint}"
        )
