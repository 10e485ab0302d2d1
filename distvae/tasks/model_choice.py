"""Which model restores a picture or a sound. Nothing heavy is imported."""

from collections.abc import Sequence
from typing import Literal

from distvae.files.refusal import Refusal

Model = Literal["groups", "tvae"]
"""Groups of windows (`groups.py`, `sound_groups.py`), or a model that is trained."""


def is_by_groups(model: Model | None, option: str, trained: Sequence[str], has_gaps: bool) -> bool:
    """Return whether groups of windows restore it, and no model is trained.

    It depends on the model that was asked for, the options of training that were given, and whether
    it is a sound with gaps. `option` is the name by which the model is asked for.
    """
    if model == "groups" and (trained or has_gaps):
        reason = f"{trained[0]} is for models that are trained" if trained else "gaps of a sound"
        raise Refusal(f"{option} groups: {reason}; {option} tvae expected")
    return model == "groups" or not (model or trained or has_gaps)
