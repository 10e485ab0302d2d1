"""Restoration of arrays, in the manner of scikit-image: `denoise(image)`, `inpaint(image,
mask)`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distvae.files.refusal import Refusal
from distvae.tasks.presets import Preset, preset_config, refuse_corruption
from distvae.tasks.restoration import Restoration, Stage

Floats = NDArray[np.float64]
Watch = Callable[[Stage], Any]


def denoise(
    image: ArrayLike,
    *,
    preset: Preset = "fast",
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    channel_axis: int | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Floats:
    """An image (2-D) or a sound (1-D), beside a channel axis, without its noise, whose strength
    need not be known.

    The result is in the units of the input. `settings` sets dotted keys of the recipe, such as
    {"train.epochs": 40}; `watch` is called after each epoch. The recipes of preset 'paper' take the
    values as they are, 0 to 255.
    """
    array = _channels_last(image, channel_axis)
    if np.isnan(array).any():
        raise Refusal("image: holds NaN; inpaint(image, mask) fills in missing values")
    restored = _restore(array, False, preset, recipe, settings, seed, watch)
    return _as_given(restored, channel_axis)


def inpaint(
    image: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    preset: Preset = "fast",
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    channel_axis: int | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Floats:
    """An image with what is missing filled in: where the mask is true, or without one where the
    image is NaN.

    The mask has the image's shape, or lacks its channel axis. Observed values are kept; see
    `denoise` for the rest.
    """
    array = _channels_last(image, channel_axis)
    missing = (
        np.isnan(array)
        if mask is None
        else _missing(np.asarray(mask, bool), array.shape, channel_axis)
    )
    if not missing.any():
        raise Refusal(
            "mask: nothing is missing; true, or NaN in the image, where values are to be filled in"
        )
    if np.isnan(array[~missing]).any():
        raise Refusal("image: holds NaN where the mask says that it was observed")
    given = np.where(missing, np.nan, array)
    restored = np.where(
        missing, _restore(given, True, preset, recipe, settings, seed, watch), array
    )
    return _as_given(restored, channel_axis)


def _restore(
    array: Floats,
    inpainting: bool,
    preset: Preset,
    recipe: str | None,
    settings: Mapping[str, Any] | None,
    seed: int,
    watch: Watch | None,
) -> Floats:
    config = preset_config(
        array, preset, recipe, {"train.seed": seed} | dict(settings or {}), inpainting
    )
    restoration = Restoration(refuse_corruption(config, "noise", "drop"), array)
    for stage in restoration.run():
        if watch is not None:
            watch(stage)
    return restoration.restored()


def _channels_last(image: ArrayLike, axis: int | None) -> Floats:
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise Refusal("image: rows of different lengths; an array of numbers expected") from error
    if array.dtype.kind not in "fiub":
        raise Refusal(f"image: holds {array.dtype}; real numbers expected")
    if array.ndim - (axis is not None) not in (1, 2):
        raise Refusal(
            f"image: {array.ndim} axes; one for a sound, two for a picture, and channel_axis"
            " expected"
        )
    if not array.size:
        raise Refusal(
            f"image: shape {array.shape}, without any value; a picture or a sound expected"
        )
    if axis is not None and not -array.ndim <= axis < array.ndim:
        raise Refusal(
            f"channel_axis: {axis} of an image of {array.ndim} axes; one that it has expected"
        )
    array = array.astype(np.float64)
    return array[..., None] if axis is None else np.moveaxis(array, axis, -1)


def _as_given(array: Floats, axis: int | None) -> Floats:
    return array[..., 0] if axis is None else np.moveaxis(array, -1, axis)


def _missing(
    mask: NDArray[np.bool_], shape: tuple[int, ...], axis: int | None
) -> NDArray[np.bool_]:
    """The mask of every channel, channels last."""
    beside = axis is None or mask.ndim < len(shape)
    mask = mask[..., None] if beside else np.moveaxis(mask, axis or 0, -1)
    if mask.shape[:-1] != shape[:-1]:
        raise Refusal(f"mask: shape {mask.shape[:-1]}; {shape[:-1]} expected, as the image has")
    return np.broadcast_to(mask, shape)
