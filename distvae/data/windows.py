"""Windows: rows are overlapping parts of one picture or sound, which can be restored from them.

Arrays have their channels last: (height, width, channels) of a picture, (samples, channels) of a
sound. Missing values are NaN.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from distvae.config import DataConfig, PatchData
from distvae.data.audio import resample
from distvae.data.dataset import Array, Dataset
from distvae.data.family import DataFamily, Survey, Values, family_of, register
from distvae.data.folders import fetch
from distvae.data.pictures import PHOTOGRAPH, opened
from distvae.data.signals import (
    FLOATS,
    PEAK,
    PICTURE,
    SOUND,
    Signal,
    example,
    read_picture,
    read_signal,
)
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, one_line, require_regular_file
from distvae.numerics.arrays import Doubles, Floats

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
    with opened(path) as image:  # JPEG and WebP brighten black, whatever the name of the file says
        black = PEAK / 2 if image.format in ("JPEG", PHOTOGRAPH, "WEBP") else 0.0
    mask = np.asarray((picture.values > black).any(-1, keepdims=True))
    return mask if picture.alpha is None else mask & (picture.alpha[..., None] > 0)


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


@register(PatchData)
class PatchFamily(DataFamily[PatchData]):
    """Overlapping windows of one picture or sound, which can be restored from them."""

    values = Values(may_be_missing=True)
    built_in = (PICTURE, SOUND)

    @property
    def window(self) -> tuple[int, ...]:
        """(height, width) of a patch or (samples,) of a chunk."""
        return self.config.window

    @property
    def corruption(self) -> dict[str, float]:
        """The settings that `corrupt` follows, by name; empty if it changes nothing."""
        return self.config.corruption

    @property
    def noise_seed(self) -> int:
        """Seed of `corrupt`."""
        return self.config.noise_seed

    @property
    def density(self) -> float:
        """Windows for each value, 1 at a stride of one."""
        return float(self.config.stride) ** -len(self.window)

    def open(self, quiet: bool = False) -> Dataset:
        """Return the windows of the picture or sound, corrupted as the settings ask."""
        damaged, name = self.corrupt(read_source(self.config)), Path(self.config.path).name
        refuse_constant(damaged.values, name)
        return self.dataset(name, self.cut(damaged.values))

    def clean(self) -> Signal:
        """Return the picture or sound before it is corrupted."""
        return read_source(fetch(self.config))

    def corrupt(self, signal: Signal) -> Signal:
        """Return a signal with the noise or the missing values that the settings ask for."""
        if self.config.drop:
            gone = self.find_dropped(signal)
            return signal.with_values(np.where(gone, np.nan, signal.values))
        level = self.noise_level(signal)
        return signal.noisy(level, self.config.noise_seed) if level else signal

    def noise_level(self, signal: Signal) -> float:
        """Return the standard deviation of the noise that `corrupt` adds to a signal."""
        if self.config.snr is None:
            return self.config.noise
        return float(np.sqrt(np.square(signal.values).mean())) * 10 ** (-self.config.snr / 20)

    def find_dropped(self, signal: Signal) -> NDArray[np.bool_]:
        """Return which values of a signal `corrupt` drops: all channels of a pixel or sample
        together, or each value by itself, in gaps of some size that may overlap.
        """
        config, (*places, channels) = self.config, signal.values.shape
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

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the places of the windows on an array (..., channels)."""
        return Grid.of(shape, self.config)

    def cut(self, array: Floats) -> Patches:
        """Return the windows of an array (..., channels)."""
        return Patches.of(array, self.config)

    def dataset(self, name: str, patches: Patches) -> Dataset:
        """Return windows as a dataset."""
        return patches.dataset(name, self.config)

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return what a picture or sound file holds, or a built-in signal; refuse a file of any
        other kind.
        """
        signal = example(path)
        if signal is None:
            if Path(path).is_dir():
                return None
            signal = read_signal(Path(path))
        *sides, channels = signal.values.shape
        if signal.rate is not None:
            facts = {"seconds": sides[0] / signal.rate, "rate": signal.rate}
            return Survey(path, "a sound", "patches", {}, facts)
        height, width = sides
        size = {"height": height, "width": width, "channels": channels, "bits": signal.bits}
        if missing := int(np.isnan(signal.values).sum()):
            size["missing"] = missing
        return Survey(path, "a picture", "patches", {}, size)

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return the command that trains on a built-in signal, or restores a file."""
        path = survey.quoted_path
        if survey.path in cls.built_in:
            recipe = "picture-fast" if survey.path == PICTURE else "sound-fast"
            return f"distvae train {recipe} --data {path}"
        suffix = "png" if "width" in survey.facts else "wav"
        if survey.facts.get("bits") == FLOATS:
            suffix = "tif"
        command, result = "denoise", "clean"
        if "missing" in survey.facts:
            command, result = "inpaint", "whole"
        return f"distvae {command} {path} {result}.{suffix}"


def windows_of(config: DataConfig) -> PatchFamily | None:
    """Return the data as windows of one picture or sound, or None if it is something else."""
    family = family_of(config)
    return family if isinstance(family, PatchFamily) else None


def read_source(config: PatchData) -> Signal:
    """Return the picture or sound at the path of the settings. A sound is resampled and cut to the
    excerpt of the settings.
    """
    if not config.path:
        raise Refusal(
            f"data.path: empty; --data PATH expected: a picture, a sound, '{PICTURE}' or '{SOUND}'"
        )
    signal = example(config.path) or read_signal(Path(config.path).expanduser())
    if signal.rate is None:
        return signal
    rate = config.rate or signal.rate
    values: Doubles = resample(signal.values, signal.rate, rate)
    if config.excerpt is not None:
        start, seconds = config.excerpt
        first, last = round(start * rate), round((start + seconds) * rate)
        if not first < last <= len(values):
            raise Refusal(
                f"data.excerpt: {list(config.excerpt)} of {Path(config.path).name}, which lasts"
                f" {len(values) / rate:g} s; a start and a length in seconds within it expected"
            )
        values = values[first:last]
    return signal.with_values(values, rate)
