"""Windows: rows are parts of pictures or of a sound."""

from typing import TYPE_CHECKING

from distvae.config import CropData, PatchData
from distvae.data.dataset import Dataset
from distvae.data.examples import PICTURE, SOUND
from distvae.data.family import DataFamily, Values, register
from distvae.data.remote import fetch
from distvae.data.signals import FLOATS
from distvae.data.survey import Survey
from distvae.numerics.array_types import Floats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from distvae.data.signals import Signal
    from distvae.data.windows.patches import Grid, Patches


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
        from distvae.data.windows.patches import open_patches

        return open_patches(self.config)

    def clean(self) -> "Signal":
        """Return the picture or sound before it is corrupted."""
        from distvae.data.windows.source import read_source

        return read_source(fetch(self.config))

    def corrupt(self, signal: "Signal") -> "Signal":
        """Return a signal with the noise or the missing values that the settings ask for."""
        from distvae.data.windows.source import corrupt

        return corrupt(signal, self.config)

    def noise_level(self, signal: "Signal") -> float:
        """Return the standard deviation of the noise that `corrupt` adds to a signal."""
        from distvae.data.windows.source import noise_level

        return noise_level(signal, self.config)

    def find_dropped(self, signal: "Signal") -> "NDArray[np.bool_]":
        """Return which values of a signal `corrupt` drops."""
        from distvae.data.windows.missing import drop_at_random

        return drop_at_random(self.config)(signal)

    def grid(self, shape: tuple[int, ...]) -> "Grid":
        """Return the places of the windows on an array (..., channels)."""
        from distvae.data.windows.patches import Grid

        return Grid.of(shape, self.config)

    def cut(self, array: Floats) -> "Patches":
        """Return the windows of an array (..., channels)."""
        from distvae.data.windows.patches import Patches

        return Patches.of(array, self.config)

    def dataset(self, name: str, patches: "Patches") -> Dataset:
        """Return windows as a dataset."""
        return patches.dataset(name, self.config)

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return what is in a picture or sound file, or in a built-in one."""
        from distvae.data.windows.survey import survey_signal

        return survey_signal(path)

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
        command, result = (
            ("inpaint", "whole") if "missing" in survey.facts else ("denoise", "clean")
        )
        return f"distvae {command} {path} {result}.{suffix}"


@register(CropData)
class CropFamily(DataFamily[CropData]):
    """Whitened windows drawn at random from pictures."""

    def open(self, quiet: bool = False) -> Dataset:
        """Return the windows by split."""
        from distvae.data.windows.crops import open_crops

        return open_crops(self.config, quiet)
