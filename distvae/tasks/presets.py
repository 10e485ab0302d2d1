"""Presets of restoration: each names a recipe for a picture, a colour picture or a sound."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from distvae.config import Config, PatchData
from distvae.config.recipes import load
from distvae.config.schema import TINY, check_value
from distvae.data.windows import PatchFamily, distinct_channels, refuse_constant, windows_of
from distvae.files.refusal import Refusal
from distvae.models.likelihoods import SQUARABLE
from distvae.numerics.arrays import AnyArray, Floats
from distvae.tasks.by_groups import Model

Preset = Literal["fast", "balanced", "paper"]
RESTORING = ("gaussian", "gaussian_learned")
"""Likelihoods of real values, whose mean restores a corrupted value."""
STRONG = 37.0
"""The noise level, of values up to 255, above which the paper's setting for sigma = 50 is better
than its setting for sigma = 25.
"""


def preset_config(
    array: Floats,
    model: Model | None,
    preset: Preset | None,
    recipe: str | None,
    settings: Mapping[str, object],
    inpainting: bool,
) -> Config:
    """Return the configuration that restores an array: the given recipe, or else the recipe of the
    model and the preset.
    """
    if model == "ssc" and preset:
        raise Refusal(f"preset: '{preset}' with model 'ssc'; model 'tvae' expected")
    if recipe is None and model == "ssc":
        recipe = "sound-ssc" if array.ndim < 3 else "picture-ssc"
    elif recipe is None:
        recipe = preset_recipe(array, preset or "fast", inpainting, settings.get("train.sigma"))
    return load(recipe, settings)


def restored_windows(config: Config) -> PatchFamily | None:
    """Return the windows that a configuration restores, or None if its model cannot restore."""
    return windows_of(config.data) if config.model.likelihood in RESTORING else None


def corrupted_windows(config: Config) -> PatchFamily | None:
    """Return the windows that a configuration corrupts before it restores them, or None.

    Corrupted windows have a clean reference.
    """
    windows = restored_windows(config)
    return windows if windows is not None and windows.corruption else None


def refuse_corruption(config: Config, *ways: Literal["noise", "snr", "drop"]) -> Config:
    """Return the configuration; refuse it if it corrupts the data in one of these ways."""
    windows = corrupted_windows(config)
    for way, amount in ({} if windows is None else windows.corruption).items():
        if way in ways:
            done = "nothing is dropped" if way == "drop" else "no noise is added"
            raise Refusal(f"data.{way}: {amount:g}, but {done} here; omit it")
    return config


def refuse_changed_sound(config: Config) -> None:
    """Refuse a configuration that resamples or cuts a sound before restoring it."""
    if isinstance(config.data, PatchData):
        for name in ("rate", "excerpt"):
            if (value := getattr(config.data, name)) is not None:
                raise Refusal(f"data.{name}: {value}, but the data is used as it is; omit it")


def refuse_unfit(array: Floats, name: str, sigma: float | None) -> None:
    """Refuse values that cannot be restored, and a noise level in other units than the values."""
    if np.isinf(array).any():
        raise Refusal(f"{name}: holds infinite values; finite ones expected")
    if not np.isfinite(array).any():
        raise Refusal(f"{name}: every value is missing; some observed values expected")
    refuse_constant(array, name)
    largest = float(np.nanmax(np.abs(array)))
    if not TINY < largest < SQUARABLE[1]:
        raise Refusal(
            f"{name}: values of up to {largest:g}; from {TINY:g} to {SQUARABLE[1]:g} expected"
        )
    spread = float(np.nanstd(array))
    if sigma and sigma > 2 * spread:
        raise Refusal(
            f"train.sigma: {sigma:g}, but all values of {name} vary by {spread:.3g}; the level of"
            " the noise in the same units expected"
        )


def refuse_negative(array: AnyArray, name: str) -> None:
    """Refuse values that cannot be counts."""
    if array.min() < 0:
        raise Refusal(f"{name}: holds {array.min():g}; counts, 0 or more, expected")


def preset_recipe(array: Floats, preset: Preset, inpainting: bool, sigma: object = None) -> str:
    """Return the recipe of a preset for an array. `sigma` is the level of the noise if known."""
    check_value("preset", Preset, preset)
    if array.ndim < 3:
        kind = "gaps" if inpainting else "sound"
        return "audio" if preset == "paper" else f"{kind}-{preset}"
    if preset != "paper":
        is_grey = distinct_channels(array).shape[-1] == 1
        return f"{'picture' if is_grey else 'colour'}-{preset}"
    if inpainting:
        return "house-inpaint"
    level = sigma if isinstance(sigma, int | float) else estimate_noise(array)
    return "house-50" if level > STRONG else "house-25"


def estimate_noise(picture: Floats) -> float:
    """Estimate the standard deviation of white noise from diagonal differences (Donoho)."""
    detail = picture[:-1, :-1] - picture[1:, :-1] - picture[:-1, 1:] + picture[1:, 1:]
    return float(np.median(np.abs(detail)) / (2 * 0.6745))
