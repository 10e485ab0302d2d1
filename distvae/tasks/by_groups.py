"""Restore a picture, a stack or a sound by groups of similar windows, without training a model.

This module imports no large package until it restores.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.numerics.arrays import Doubles, Floats
    from distvae.tasks.groups import Report, Restored
    from distvae.tasks.sound_groups import RestoredSound


Model = Literal["groups", "tvae", "ssc"]
"""Groups of windows, or a kind of model that is trained."""
WITHOUT_TRAINING = (
    *("train.seed", "train.sigma"),
    *("data.noise", "data.noise_seed", "data.snr", "data.drop", "data.rate", "data.excerpt"),
)
"""Settings that apply to groups of windows too."""


class Options(Protocol):
    """The options of a restoration."""

    @property
    def model(self) -> Model | None:
        """The model that restores, if it is named."""


def is_by_groups(
    options: Options,
    of_training: Sequence[str],
    has_gaps: bool,
    settings: Iterable[str] = (),
    prefix: str = "",
) -> bool:
    """Return whether groups of windows restore a file or an array, without training a model.

    An option named in `of_training` that is not None, a setting of training, or gaps in a sound
    require a trained model. `prefix` comes before the name of an option in a refusal.
    """
    trained = [prefix + name for name in of_training if getattr(options, name) is not None]
    trained += [key for key in settings if key not in WITHOUT_TRAINING]
    if options.model == "groups" and (trained or has_gaps):
        reason = f"{trained[0]} is for models that are trained" if trained else "gaps of a sound"
        raise Refusal(f"{prefix}model groups: {reason}; {prefix}model tvae expected")
    return options.model == "groups" or not (options.model or trained or has_gaps)


@dataclass(frozen=True)
class Wanted:
    """What is known about the noise of pictures or a sound, and what is asked for."""

    sigma: float | None = None
    """The standard deviation of the noise. By default the noise is estimated."""
    counts: bool = False
    """Whether values are counts of events, or proportional to them."""
    deviation: bool = False
    """Whether the standard deviations of the errors of a picture are estimated too."""
    across: int = 0
    """The number of frames of a stack, before and behind, that are searched for similar windows."""


def restore_array(
    array: "Floats", wanted: Wanted, rate: int | None = None, report: "Report | None" = None
) -> "Restored | RestoredSound":
    """Restore a picture (height, width, channels), a stack (frames, height, width, channels) or a
    sound (samples, channels).

    Equal channels of a picture or a sound are restored once.
    """
    import numpy as np

    from distvae.data.windows import distinct_channels
    from distvae.system import available_cores
    from distvae.tasks import groups, sound_groups

    fills, report = bool(np.isnan(array).any()), report or groups.silent
    frames = array if array.ndim == 4 else [distinct_channels(array)]
    if array.ndim == 2:
        rate = rate or sound_groups.RATE
        sound = sound_groups.restore(frames[0], wanted.sigma, available_cores(), report, rate)
        return sound._replace(values=np.broadcast_to(sound.values, array.shape))
    if array.ndim == 3:
        wanted = replace(wanted, across=0)
    found = list(restore_series(frames.__getitem__, range(len(frames)), wanted, fills, report))
    shape = array.shape[-3:]

    def stacked(each: "Iterable[Doubles]") -> "Doubles":
        pictures = [np.broadcast_to(picture, shape) for picture in each]
        return np.stack(pictures) if array.ndim == 4 else pictures[0]

    errors = [each.deviation for each in found if each.deviation is not None]
    values = stacked(each.values for each in found)
    return groups.Restored(values, found[0].noise, stacked(errors) if errors else None)


def restore_series(
    read: "Callable[[int], Floats]",
    numbers: Sequence[int],
    wanted: Wanted,
    fills: bool,
    report: "Report",
) -> "Iterator[Restored]":
    """Yield the pictures of a series, or a single picture, without their common noise.

    `read` returns a picture (height, width, channels) by its number. With `fills`, missing values
    are filled in, and noise is only removed if its level is known.
    """
    from distvae.system import available_cores
    from distvae.tasks.groups import Noise, noise_of, restore_stack

    noise: Noise | None = None
    if wanted.sigma is not None:
        noise = Noise.white(wanted.sigma, read(numbers[0]).shape[-1])
    elif not fills:
        noise = noise_of(partial(map, read, numbers), wanted.counts)
    work = (read, numbers, noise, wanted.across, available_cores(), report)
    return restore_stack(*work, deviation=wanted.deviation)
