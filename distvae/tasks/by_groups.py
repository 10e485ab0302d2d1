"""Restore a picture or a sound by groups of similar windows, without training a model. This module
imports no large package until it restores.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.numerics.arrays import Floats
    from distvae.tasks.groups import Report, Restored
    from distvae.tasks.sound_groups import RestoredSound


Model = Literal["groups", "tvae"]
"""Groups of windows, or a trained model."""
WITHOUT_TRAINING = (
    *("train.seed", "train.sigma"),
    *("data.noise", "data.noise_seed", "data.snr", "data.drop", "data.rate", "data.excerpt"),
)
"""Settings that apply to groups of windows too."""


def is_by_groups(
    model: Model | None,
    option: str,
    options: Mapping[str, object],
    settings: Iterable[str],
    has_gaps: bool,
) -> bool:
    """Return whether groups of windows restore a file or an array, without training a model.

    `model` is the value of the option named `option`. An option of training that is not None, a
    setting of training, or gaps in a sound require a trained model.
    """
    trained = [name for name, value in options.items() if value is not None]
    trained += [key for key in settings if key not in WITHOUT_TRAINING]
    if model == "groups" and (trained or has_gaps):
        reason = f"{trained[0]} is for models that are trained" if trained else "gaps of a sound"
        raise Refusal(f"{option} groups: {reason}; {option} tvae expected")
    return model == "groups" or not (model or trained or has_gaps)


def restore_array(
    array: "Floats",
    sigma: float | None,
    *,
    counts: bool = False,
    deviation: bool = False,
    rate: int | None = None,
    report: "Report | None" = None,
) -> "Restored | RestoredSound":
    """Restore a picture (height, width, channels) or a sound (samples, channels).

    `sigma` is the standard deviation of the noise if it is known. `counts` says that the values are
    counts of events. With `deviation`, the deviations of the errors of a picture are estimated too.
    Equal channels are restored once, so the result may have a single channel.
    """
    from distvae.data.windows import distinct_channels
    from distvae.system import available_cores
    from distvae.tasks import groups, sound_groups

    channels, threads, report = distinct_channels(array), available_cores(), report or groups.silent
    if array.ndim < 3:
        return sound_groups.restore(channels, sigma, threads, report, rate or sound_groups.RATE)
    noise = groups.noise_of(lambda: [channels], counts=True) if counts else sigma
    return groups.restore(channels, noise, threads, report, deviation=deviation)
