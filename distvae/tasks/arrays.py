"""Restore NumPy arrays and files, with an interface like scikit-image's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distvae.config.recipes import named_settings, python_value, with_options
from distvae.config.schema import Positive, check_value, whole_number
from distvae.data.signals import Signal, read_signal
from distvae.data.windows import masked_by, read_mask
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import Plain
from distvae.numerics.arrays import Doubles, plain_array
from distvae.system import available_cores
from distvae.tasks.by_groups import Model, is_by_groups, restore_array
from distvae.tasks.presets import (
    Preset,
    preset_config,
    refuse_changed_sound,
    refuse_corruption,
    refuse_negative,
    refuse_unfit,
)
from distvae.tasks.restoration import Restoration, Stage

if TYPE_CHECKING:
    from distvae.tasks.groups import Restored
    from distvae.tasks.sound_groups import RestoredSound

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
    array of a sound has 16,000 samples a second. The model 'tvae' is trained. It is the default for
    gaps of sounds, and if any of the following options is given. `preset` is 'fast' unless another
    preset or a recipe is named; the recipes of preset 'paper' expect values from 0 to 255.
    `settings` sets dotted keys of the recipe, such as {"train.epochs": 40}. `watch` is called after
    each epoch; training ends if it returns False.
    """
    options = _Options(model, preset, recipe, settings, seed, watch, sigma, bool(counts))
    return _denoised(image, channel_axis, stack_axis, across, options)[0]


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
    options = _Options(sigma=sigma, counts=bool(counts), std=True)
    restored, std = _denoised(image, channel_axis, stack_axis, across, options)
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
    array, channel_axis = _channels_last(content, channel_axis)
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
    return _channels_back(restored, channel_axis)


def _denoised(
    image: ArrayLike | str | Path,
    channel_axis: int | None,
    stack_axis: int | None,
    across: int,
    options: _Options,
) -> list[Doubles]:
    """Return an image, a stack or a sound without noise, and the deviations if `options.std`."""
    if options.counts and options.sigma is not None:
        raise Refusal(
            "counts, sigma: the noise of counts has no single level; one of them expected"
        )
    content = _opened(image)
    if stack_axis is not None:
        return _denoised_stack(content, stack_axis, channel_axis, across, options)
    array, channel_axis = _channels_last(content, channel_axis)
    if np.isnan(array).any():
        raise Refusal("image: holds NaN; inpaint(image, mask) fills in missing values")
    if options.counts:
        refuse_negative(array, "image")
    options = replace(options, rate=content.rate if isinstance(content, Signal) else None)
    return [_channels_back(each, channel_axis) for each in _restore(array, False, options)]


def _restore(array: Doubles, inpainting: bool, options: _Options) -> list[Doubles]:
    """Return a restored array, and the deviations of its errors if `options.std`."""
    sigma = check_value("sigma", Positive | None, python_value(options.sigma))
    if options.std and array.ndim < 3:
        raise Refusal("image: a sound; an image expected, whose errors have a known deviation")
    asked = "counts" if options.counts else "sigma" if inpainting and sigma else ""
    if asked and (array.ndim < 3 or not _is_by_groups(array, options)):
        raise Refusal(f"{asked}: for an image and model 'groups', without options of training")
    if _is_by_groups(array, options):
        refuse_unfit(array, "image", sigma)
        found = restore_array(
            array, sigma, counts=options.counts, deviation=options.std, rate=options.rate
        )
        return [np.broadcast_to(each, array.shape).copy() for each in _asked(found)]
    settings = {"train.seed": python_value(options.seed), **named_settings(options.settings)}
    settings = with_options(settings, {"sigma": ("train.sigma", sigma)})
    if options.preset and options.recipe:
        raise Refusal("preset, recipe: both are given; one of them expected")
    if not (options.watch is None or callable(options.watch)):
        raise Refusal(f"watch: {shown(options.watch)}; a function of the state expected")
    preset = options.preset or "fast"
    recipe = None if options.recipe is None else str(options.recipe)
    config = preset_config(array, preset, recipe, settings, inpainting)
    refuse_changed_sound(config)
    refuse_corruption(config, "noise", "snr", "drop")
    restoration = Restoration(config, array)
    for stage in restoration.run():
        answer = None if options.watch is None else options.watch(stage)
        if isinstance(answer, bool | np.bool_) and not answer:  # None and 0 let it go on
            break
    return [restoration.restored()]


def _asked(found: "Restored | RestoredSound") -> list[Doubles]:
    """Return the restored values, and the deviations of the errors if there are any."""
    deviation = getattr(found, "deviation", None)
    return [found.values] if deviation is None else [found.values, deviation]


def _denoised_stack(
    image: ArrayLike | Signal,
    stack_axis: int,
    channel_axis: int | None,
    across: int,
    options: _Options,
) -> list[Doubles]:
    """Return the images of a stack without noise, by groups of windows, and the deviations of their
    errors if `options.std`.
    """
    from distvae.tasks.groups import noise_of, restore_stack

    if isinstance(image, Signal):
        raise Refusal("stack_axis: for arrays, but image is a path; omit it")
    array = _numbers(image, "image").astype(np.float64)
    given = {"stack_axis": stack_axis} | (
        {} if channel_axis is None else {"channel_axis": channel_axis}
    )
    axes = [_checked_axis(array, name, axis) for name, axis in given.items()]
    if array.ndim - len(axes) != 2 or len(set(axes)) < len(axes):
        raise Refusal(f"image: {array.ndim} axes; two beside {' and '.join(given)} expected")
    ends = (0, -1)[: len(axes)]
    frames = np.moveaxis(array, axes, ends)
    frames = frames if len(axes) == 2 else frames[..., None]
    if np.isnan(frames).any() or not frames.size:
        raise Refusal("image: holds NaN or nothing; images of numbers expected")
    if not _is_by_groups(frames, options):
        raise Refusal("stack_axis: for the model 'groups'; images one by one expected")
    sigma = check_value("sigma", Positive | None, python_value(options.sigma))
    refuse_unfit(frames, "image", sigma)
    if options.counts:
        refuse_negative(frames, "image")
    across = whole_number("across", int, across)
    if across < 0:
        raise Refusal(f"across: {across}; 0 or more expected")
    noise = noise_of(lambda: frames, options.counts) if sigma is None else sigma
    order, threads = range(len(frames)), available_cores()
    work = (frames.__getitem__, order, noise, across, threads)
    found = map(_asked, restore_stack(*work, deviation=options.std))
    stacks = [np.stack(each) for each in zip(*found, strict=True)]
    return [np.moveaxis(each if len(axes) == 2 else each[..., 0], ends, axes) for each in stacks]


def _checked_axis(array: NDArray[np.generic], name: str, axis: int) -> int:
    """Return the number of an axis, counted from the first axis."""
    axis = whole_number(name, int, axis)
    if not -array.ndim <= axis < array.ndim:
        raise Refusal(f"{name}: {axis} of an image of {array.ndim} axes; one that it has expected")
    return axis % array.ndim


def _is_by_groups(array: Doubles, options: _Options) -> bool:
    """Return whether groups of windows restore an array, given these options."""
    model = check_value("model", Model | None, options.model)
    named = {name: getattr(options, name) for name in ("preset", "recipe", "settings", "watch")}
    has_gaps = array.ndim < 3 and bool(np.isnan(array).any())
    return is_by_groups(model, "model", named, (), has_gaps)


def _opened(image: ArrayLike | str | Path) -> ArrayLike | Signal:
    """Return an array, or the content of a file if a path was given."""
    return read_signal(Path(image).expanduser()) if isinstance(image, str | Path) else image


def _channels_last(image: ArrayLike | Signal, axis: int | None) -> tuple[Doubles, int | None]:
    """Return a checked array with the channels on the last axis. Also return the axis that the
    channels had before, or None.
    """
    if isinstance(image, Signal):
        return image.values, None if image.values.shape[-1] == 1 else -1
    array = _numbers(image, "image")
    if axis is not None:
        axis = whole_number("channel_axis", int, axis)
    if array.ndim - (axis is not None) not in (1, 2):
        raise Refusal(
            f"image: {array.ndim} axes; one for a sound, two for a picture, and channel_axis"
            " expected"
        )
    if not array.size:
        raise Refusal(
            f"image: shape {array.shape}, without any value; a picture or a sound expected"
        )
    if axis is not None:
        _checked_axis(array, "channel_axis", axis)
    values = array.astype(np.float64)
    return (values[..., None] if axis is None else np.moveaxis(values, axis, -1)), axis


def _numbers(array: ArrayLike, name: str) -> NDArray[np.generic]:
    """Return an array of real numbers. The refusal of anything else begins with `name`."""
    try:
        numbers = np.asarray(plain_array(array))
    except ValueError as error:
        raise Refusal(f"{name}: rows of different lengths; an array of numbers expected") from error
    if numbers.dtype.kind not in "fiub":
        raise Refusal(f"{name}: holds {numbers.dtype}; real numbers expected")
    return numbers


def _channels_back(array: Doubles, axis: int | None) -> Doubles:
    """Undo `_channels_last`."""
    return array[..., 0] if axis is None else np.moveaxis(array, -1, axis)


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
