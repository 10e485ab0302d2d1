"""Which recipe restores an array: a preset names one that suits its kind."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distvae.config import Config
from distvae.config.recipes import load
from distvae.data.family import HasWindows, windows_of
from distvae.data.windows.patches import distinct
from distvae.files.refusal import Refusal

Preset = Literal["fast", "balanced", "paper"]
Floats = NDArray[np.floating]
STRONG = 37.0
"""The noise, of values up to 255, from which the paper's setting for sigma = 50 suits better than
that for 25.
"""


def preset_config(
    array: Floats, preset: Preset, recipe: str | None, settings: Mapping[str, Any], inpainting: bool
) -> Config:
    """The configuration that restores an array: of the recipe named, or else of the preset."""
    return load(recipe or preset_recipe(array, preset, inpainting), settings)


def restored_windows(config: Config) -> HasWindows | None:
    """Return the windows that a configuration restores; None if it is not one for restoration."""
    model = config.model
    if model.kind != "tvae" or model.likelihood != "gaussian":
        return None
    return windows_of(config.data)


def corrupted_windows(config: Config) -> HasWindows | None:
    """Return the windows that are corrupted before they are restored, so that there is a clean
    reference; None if a configuration does not corrupt them.
    """
    windows = restored_windows(config)
    return windows if windows is not None and (windows.noise or windows.drop) else None


def refuse_corruption(config: Config, *ways: Literal["noise", "drop"]) -> Config:
    """The configuration, unless it asks for what is not done here."""
    for way in ways:
        windows = corrupted_windows(config)
        asked = 0.0 if windows is None else {"noise": windows.noise, "drop": windows.drop}[way]
        if asked:
            done = {"noise": "none is added", "drop": "nothing is dropped"}[way]
            raise Refusal(f"data.{way}: {asked:g}, but {done} here; 0 expected")
    return config


def preset_recipe(array: Floats, preset: Preset, inpainting: bool) -> str:
    """The recipe that a preset stands for."""
    kind = _kind(array)
    if preset != "paper":
        return f"{kind}-{preset}"
    if kind == "sound":
        return "audio"
    if inpainting:
        return "house-inpaint"
    return "house-50" if estimate_noise(array) > STRONG else "house-25"


def _kind(array: Floats) -> Literal["sound", "picture", "colour"]:
    """What recipes of presets are named by."""
    if array.ndim < 3:
        return "sound"
    return "picture" if distinct(array).shape[-1] == 1 else "colour"


def estimate_noise(picture: Floats) -> float:
    """The deviation of white noise: the median size of the finest diagonal differences (Donoho's
    estimate).
    """
    detail = picture[:-1, :-1] - picture[1:, :-1] - picture[:-1, 1:] + picture[1:, 1:]
    return float(np.median(np.abs(detail)) / (2 * 0.6745))
