"""Which recipe restores an array: a preset names one that suits its kind."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distvae.config import Config, PatchData
from distvae.config.recipes import load
from distvae.data.windows.patches import distinct
from distvae.files.refusal import Refusal

Preset = Literal["fast", "balanced", "paper"]
Floats = NDArray[np.floating]
STRONG = 37.0
"""The noise, of values up to 255, from which the paper's setting for sigma = 50 suits better than
that for 25.
"""


def configured(
    array: Floats, preset: Preset, recipe: str | None, settings: Mapping[str, Any], inpainting: bool
) -> Config:
    """The configuration that restores an array: of the recipe named, or else of the preset."""
    return load(recipe or recipe_of(array, preset, inpainting), settings)


def restores(config: Config) -> bool:
    """Whether a configuration is one for restoration."""
    model = config.model
    return (
        isinstance(config.data, PatchData)
        and model.kind == "tvae"
        and model.likelihood == "gaussian"
    )


def worsens(config: Config) -> bool:
    """Whether what is restored is made worse first, so that there is something clean to compare
    with.
    """
    return restores(config) and bool(config.data.noise or config.data.drop)


def without(config: Config, *ways: Literal["noise", "drop"]) -> Config:
    """The configuration, unless it asks for what is not done here."""
    for way in ways:
        if worsens(config) and (asked := getattr(config.data, way)):
            done = {"noise": "none is added", "drop": "nothing is dropped"}[way]
            raise Refusal(f"data.{way}: {asked:g}, but {done} here; 0 expected")
    return config


def recipe_of(array: Floats, preset: Preset, inpainting: bool) -> str:
    """The recipe that a preset stands for."""
    kind = _kind(array)
    if preset != "paper":
        return f"{kind}-{preset}"
    if kind == "sound":
        return "audio"
    if inpainting:
        return "house-inpaint"
    return "house-50" if noise_level(array) > STRONG else "house-25"


def _kind(array: Floats) -> Literal["sound", "picture", "colour"]:
    """What recipes of presets are named by."""
    if array.ndim < 3:
        return "sound"
    return "picture" if distinct(array).shape[-1] == 1 else "colour"


def noise_level(picture: Floats) -> float:
    """The deviation of white noise: the median size of the finest diagonal differences (Donoho's
    estimate).
    """
    detail = picture[:-1, :-1] - picture[1:, :-1] - picture[:-1, 1:] + picture[1:, 1:]
    return float(np.median(np.abs(detail)) / (2 * 0.6745))
