"""Restore NumPy arrays and files, with an interface like scikit-image's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distvae.config.recipes import named_settings, python_value, with_options
from distvae.config.schema import Positive, check_value, whole_number
from distvae.data.signals import Signal, read_signal
from distvae.data.windows import masked_by, read_mask
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import Plain
from distvae.numerics.arrays import Doubles, plain_array
from distvae.tasks.by_groups import Model, Wanted, is_by_groups, restore_array
from distvae.tasks.presets import (
    Preset,
    preset_config,
    refuse_changed_sound,
    refuse_corruption,
    refuse_negative,
    refuse_unfit,
)
from distvae.tasks.restoration import Restoration, Stage

OF_TRAINING = ("preset", "recipe", "settings", "watch")
"""Options that require a trained model."""
Watch = Callable[[Stage], object]
"""A function that is called after each epoch. The restoration ends if it returns False."""


@dataclass(frozen=True)
class _Options:
    """The options that decide how an array is restored."""

    model: Model | None = None
    preset: Preset | None = None
    recipe: str | Path | None = None
    settings: Mapping[str, Plain] | None = None
    seed: int = 0
    watch: Watch | None = None
    sigma: float | None = None
    counts: bool = False
    across: int = 0
    std: bool = False
    """Whether to return the standard deviations of the errors as well."""
    rate: int | None = None
    """The sampling rate of a sound file."""


def denoise(
    image: ArrayLike | str | Path,
    *,
    sigma: float | None = None,
    counts: bool = False,
    model: Model | None = None,
    preset: Preset | None = None,
    recipe: str | Path | None = None,
    settings: Mapping[str, Plain] | None = None,
    channel_axis: int | None = None,
    stack_axis: int | None = None,
    across: int = 2,
    seed: int = 0,
    watch: Watch | None = None,
) -> Doubles:
    """Remove the noise of an image (2-D) or a sound (1-D).

    `image` is an array or the path of a file. A channel axis may come beside these dimensions; in a
    file it is the last axis. The result has the units of the array. The values of a picture's file
    go from 0 to 255 for any number of bits; the values of a file of floats stay as they are.

    `sigma` is the standard deviation of the noise, in the units of the array; by default it is
    estimated. `counts=True` says that the values of an image are counts, of photons for example, or
    proportional to counts.

    The images of a stack, along `stack_axis`, are restored by groups. Similar windows are searched
    in `across` images before and behind each image; 0 restores each image alone.

    The model 'groups' compares windows and is not trained. It is the default, and assumes that an
    array of a sound has 16,000 samples a second. The models 'tvae' and 'ssc' are trained. 'tvae' is
    the default for gaps of sounds, and if any of the following options is given. `preset` of 'tvae'
    is 'fast' unless another preset or a recipe is named; the recipes of preset 'paper' expect
    values from 0 to 255. `settings` sets dotted keys of the recipe, such as {"train.epochs": 40}.
    `watch` is called after each epoch; training ends if it returns False.
    """
    options = _Options(model, preset, recipe, settings, seed, watch, sigma, bool(counts), across)
    return _denoised(image, channel_axis, stack_axis, options)[0]


def denoise_with_std(
    image: ArrayLike | str | Path,
    *,
    sigma: float | None = None,
    counts: bool = False,
    channel_axis: int | None = None,
    stack_axis: int | None = None,
    across: int = 2,
) -> tuple[Doubles, Doubles]:
    """Return an image without noise, as `denoise` does, and the standard deviation of the error of
    each value. Similar windows restore the image. This takes twice as long as `denoise`.
    """
    options = _Options(sigma=sigma, counts=bool(counts), across=across, std=True)
    restored, std = _denoised(image, channel_axis, stack_axis, options)
    return restored, std


def inpaint(
    image: ArrayLike | str | Path,
    mask: ArrayLike | str | Path | None = None,
    *,
    sigma: float | None = None,
    model: Model | None = None,
    preset: Preset | None = None,
    recipe: str | Path | None = None,
    settings: Mapping[str, Plain] | None = None,
    channel_axis: int | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Doubles:
    """Fill in the missing values of an image (2-D) or a sound (1-D). Values are missing where the
    mask is true; without a mask, where they are NaN or masked in an array of `numpy.ma`.

    The mask has the image's shape, with or without the channel axis. It may be the path of a
    picture whose pixels are black where the image was observed. The mask of a sound's file may be
    the path of a text with the start and the end of a gap in seconds in each line. Observed values
    stay as they are, unless `sigma` tells the noise of an image: then the noise is removed. The
    other options are the options of `denoise`.
    """
    content = _opened(image)
    array, arranged_back = _arranged(content, channel_axis)
    if isinstance(content, Signal):
        channel_axis = -1
    if isinstance(mask, str | Path):
        path = Path(mask).expanduser()
        found = masked_by(path)(content) if isinstance(content, Signal) else read_mask(path)
        mask = found[..., 0]  # all channels share the mask of a file
    missing = np.isnan(array) if mask is None else _missing(mask, array.shape, channel_axis)
    if not missing.any():
        raise Refusal(
            "mask: nothing is missing; true, or NaN in the image, where values are to be filled in"
        )
    if missing.all():
        raise Refusal(
            "mask: everything is missing; true, or NaN in the image, only where values are to be"
            " filled in"
        )
    if np.isnan(array[~missing]).any():
        raise Refusal("image: holds NaN where the mask says that it was observed")
    options = _Options(model, preset, recipe, settings, seed, watch, sigma)
    [restored] = _restore(np.where(missing, np.nan, array), True, options)
    if sigma is None:
        restored = np.where(missing, restored, array)
    return arranged_back(restored)


def _denoised(
    image: ArrayLike | str | Path,
    channel_axis: int | None,
    stack_axis: int | None,
    options: _Options,
) -> list[Doubles]:
    """Return an image, a stack or a sound without noise, and the deviations if they are wanted."""
    if options.counts and options.sigma is not None:
        raise Refusal(
            "counts, sigma: the noise of counts has no single level; one of them expected"
        )
    content = _opened(image)
    array, arranged_back = _arranged(content, channel_axis, stack_axis)
    if np.isnan(array).any():
        is_stack = array.ndim == 4
        expected = (
            "images of numbers expected"
            if is_stack
            else "inpaint(image, mask) fills in missing values"
        )
        raise Refusal(f"image: holds NaN; {expected}")
    if options.counts:
        refuse_negative(array, "image")
    options = replace(options, rate=content.rate if isinstance(content, Signal) else None)
    return [arranged_back(each) for each in _restore(array, False, options)]


def _restore(array: Doubles, inpainting: bool, options: _Options) -> list[Doubles]:
    """Return a restored array, and the deviations of its errors if they are wanted."""
    sigma = check_value("sigma", Positive | None, python_value(options.sigma))
    model = check_value("model", Model | None, options.model)
    if options.std and array.ndim < 3:
        raise Refusal("image: a sound; an image expected, whose errors have a known deviation")
    has_gaps = array.ndim < 3 and inpainting
    by_groups = is_by_groups(replace(options, model=model), OF_TRAINING, has_gaps)
    if array.ndim == 4 and not by_groups:
        raise Refusal("stack_axis: for the model 'groups'; images one by one expected")
    asked = "counts" if options.counts else "sigma" if inpainting and sigma else ""
    if asked and (array.ndim < 3 or not by_groups):
        raise Refusal(f"{asked}: for an image and model 'groups', without options of training")
    if by_groups:
        refuse_unfit(array, "image", sigma)
        across = whole_number("across", int, options.across)
        if across < 0:
            raise Refusal(f"across: {across}; 0 or more expected")
        wanted = Wanted(sigma, options.counts, options.std, across)
        found = restore_array(array, wanted, options.rate)
        return [each.copy() for each in (found.values, found.deviation) if each is not None]
    settings = {"train.seed": python_value(options.seed), **named_settings(options.settings)}
    settings = with_options(settings, {"sigma": ("train.sigma", sigma)})
    if options.preset and options.recipe:
        raise Refusal("preset, recipe: both are given; one of them expected")
    if not (options.watch is None or callable(options.watch)):
        raise Refusal(f"watch: {shown(options.watch)}; a function of the state expected")
    recipe = None if options.recipe is None else str(options.recipe)
    config = preset_config(array, model, options.preset, recipe, settings, inpainting)
    refuse_changed_sound(config)
    refuse_corruption(config, "noise", "snr", "drop")
    restoration = Restoration(config, array)
    for stage in restoration.run():
        answer = None if options.watch is None else options.watch(stage)
        if isinstance(answer, bool | np.bool_) and not answer:  # None and 0 let it go on
            break
    return [restoration.restored()]


def _opened(image: ArrayLike | str | Path) -> ArrayLike | Signal:
    """Return an array, or the content of a file if a path was given."""
    return read_signal(Path(image).expanduser()) if isinstance(image, str | Path) else image


def _arranged(
    image: ArrayLike | Signal, channel_axis: int | None, stack_axis: int | None = None
) -> tuple[Doubles, Callable[[Doubles], Doubles]]:
    """Return a checked array with the frames of a stack on the first axis and the channels on the
    last axis. Also return a function that moves the axes back.
    """
    if isinstance(image, Signal):
        if stack_axis is not None:
            raise Refusal("stack_axis: for arrays, but image is a path; omit it")
        is_grey = image.values.shape[-1] == 1
        return image.values, lambda found: found[..., 0] if is_grey else found
    array = _numbers(image, "image")
    given = {"stack_axis": stack_axis, "channel_axis": channel_axis}
    axes = {name: axis for name, axis in given.items() if axis is not None}
    is_stack = "stack_axis" in axes
    kinds = "two beside" if is_stack else "one for a sound, two for a picture, and"
    known = f"{kinds} {' and '.join(axes) or 'channel_axis'} expected"
    if array.ndim - len(axes) not in ((2,) if is_stack else (1, 2)):
        raise Refusal(f"image: {array.ndim} axes; {known}")
    places = [_checked_axis(array, name, axis) for name, axis in axes.items()]
    if len(set(places)) < len(places):
        raise Refusal(f"image: both are axis {places[0]}; {known}")
    if not array.size:
        raise Refusal(
            f"image: shape {array.shape}, without any value; a picture or a sound expected"
        )
    ends = [0 if name == "stack_axis" else -1 for name in axes]
    values = np.moveaxis(array.astype(np.float64), places, ends)
    if channel_axis is not None:
        return values, lambda found: np.moveaxis(found, ends, places)
    return values[..., None], lambda found: np.moveaxis(found[..., 0], ends, places)


def _checked_axis(array: NDArray[np.generic], name: str, axis: int) -> int:
    """Return the number of an axis, counted from the first axis."""
    axis = whole_number(name, int, axis)
    if not -array.ndim <= axis < array.ndim:
        raise Refusal(f"{name}: {axis} of an image of {array.ndim} axes; one that it has expected")
    return axis % array.ndim


def _numbers(array: ArrayLike, name: str) -> NDArray[np.generic]:
    """Return an array of real numbers. The refusal of anything else begins with `name`."""
    try:
        numbers = np.asarray(plain_array(array))
    except ValueError as error:
        raise Refusal(f"{name}: rows of different lengths; an array of numbers expected") from error
    if numbers.dtype.kind not in "fiub":
        raise Refusal(f"{name}: holds {numbers.dtype}; real numbers expected")
    return numbers


def _missing(given: ArrayLike, shape: tuple[int, ...], axis: int | None) -> NDArray[np.bool_]:
    """Return the checked mask of every channel, channels last."""
    numbers = _numbers(given, "mask")
    if np.isnan(numbers).any():
        raise Refusal("mask: holds NaN; true where the image is missing, and false expected")
    mask = numbers.astype(bool)
    if axis is None or mask.ndim < len(shape):
        mask = mask[..., None]
    else:
        mask = np.moveaxis(mask, axis, -1)
    if mask.shape[:-1] != shape[:-1]:
        raise Refusal(f"mask: shape {mask.shape[:-1]}; {shape[:-1]} expected, as the image has")
    if mask.shape[-1] not in (1, shape[-1]):
        raise Refusal(f"mask: {mask.shape[-1]} channels; {shape[-1]} expected, as the image has")
    return np.broadcast_to(mask, shape)
