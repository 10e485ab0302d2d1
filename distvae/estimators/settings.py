"""Convert the parameters of an estimator to a configuration."""

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from numpy.random import RandomState
from sklearn.utils import check_random_state

from distvae.config import Config, Train, from_dict
from distvae.config.recipes import named_settings, override, python_value
from distvae.config.registry import FAMILIES
from distvae.config.schema import Range, check_value, field_types, whole_number
from distvae.config.values import Count, Whole
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain

Sections = dict[str, dict[str, Plain]]
"""The settings of each section."""
SECTIONS = ("model", "estep", "train")
"""The sections that an estimator's parameters set."""
WARMUP = 0.1
"""The longest default warm-up of the learning rate, as a share of all steps."""
SHARE = Range(0.0, 0.99)
"""The allowed range of `validation_fraction`."""
OF_TRAINING = ("rate",)
"""Parameters that set only a field of `train`: the E-step's field of the same name has another
meaning.
"""
Image = tuple[Count, Count, Count]
"""(channels, height, width) of an image."""


def configuration(
    tree: Sections, parameters: Mapping[str, object], settings: Mapping[str, Plain] | None
) -> Config:
    """Return a configuration in which each parameter sets all fields of the same name.

    Every section of the tree names its kind. Further fields of the tree override parameters, and
    settings by dotted key override both.
    """
    whole: dict[str, object] = {**tree}
    for section in SECTIONS:
        known = field_types(FAMILIES[section][str(tree[section]["kind"])])
        if section == "estep":
            known = {key: hint for key, hint in known.items() if key not in OF_TRAINING}
        named = {key: python_value(value) for key, value in parameters.items() if key in known}
        whole[section] = named | tree[section]
    return from_dict(override(whole, named_settings(settings)))


def refuse_course(settings: object, once: Mapping[str, Plain]) -> None:
    """Refuse settings that conflict with partial_fit, which trains one epoch at a constant rate."""
    named = named_settings(settings)
    for name, value in once.items():
        key = f"train.{name}"
        if key in named and (name == "epochs" or named[key] != value):
            raise Refusal(
                f"settings: {key} with partial_fit, which trains one epoch at a constant rate;"
                f" settings without {key} expected"
            )


def with_short_warmup(config: Config, rows: int) -> Config:
    """Limit the warm-up to a share of all steps, unless the configuration changes its default."""
    if config.train.warmup != Train.warmup:
        return config
    steps = config.train.epochs * math.ceil(rows / config.train.batch)
    return config.with_("train", warmup=min(Train.warmup, round(WARMUP * steps)))


def validation_share(fraction: object) -> float:
    """Return the share of rows for validation; refuse a share outside its range."""
    found: float = check_value(
        "validation_fraction", Annotated[float, SHARE], python_value(fraction)
    )
    return found


def image_shape(shape: object, width: int) -> tuple[int, ...]:
    """Return the checked shape (channels, height, width) of images, or () for None."""
    if shape is None or python_value(shape) in ((), []):
        return ()
    found: tuple[int, ...] = check_value("shape", Image, python_value(shape))
    if math.prod(found) != width:
        raise Refusal(f"shape: {found} of {math.prod(found)} values; {width} expected, as in X")
    return found


def seed_of(random_state: int | RandomState | None) -> int:
    """Convert a random state of scikit-learn to a seed."""
    if isinstance(random_state, int | np.integer):
        return whole_number("random_state", Whole, random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
