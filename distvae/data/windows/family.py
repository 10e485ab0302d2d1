"""Windows: rows are overlapping parts of one picture or sound, which can be restored from them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.config import PatchData
from distvae.data.audio import resample
from distvae.data.dataset import Dataset
from distvae.data.family import DataFamily, Values, register
from distvae.data.remote import fetch
from distvae.data.signals import FLOATS, PICTURE, SOUND, Signal, example, read_signal
from distvae.data.survey import Survey
from distvae.data.windows.missing import drop_at_random
from distvae.data.windows.patches import Grid, Patches, refuse_constant
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Doubles, Floats


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
        """Return which values of a signal `corrupt` drops."""
        return drop_at_random(self.config)(signal)

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
