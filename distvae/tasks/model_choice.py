"""Choose the model that restores a picture or a sound. This module imports no large package."""

from collections.abc import Iterable, Mapping
from typing import Literal

from distvae.files.refusal import Refusal

Model = Literal["groups", "tvae"]
"""Groups of windows (`by_groups.py`), or a trained model."""
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
