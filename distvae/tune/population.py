"""Population-based training (Jaderberg et al., 2017): which trials are replaced, and by what.

The worst quarter of a population is replaced by branches of the best quarter, which continue from
its state with other settings.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from distvae.files.plain import Plain
from distvae.tune.axes import Axis, Choice, Interval
from distvae.tune.space import Space, count_replaced

REDRAWN = 0.25
"""The probability that a setting is drawn anew instead of moved."""
FACTOR = 1.25
"""The factor by which a setting with a logarithmic axis changes."""
STEP = 0.1
"""The step of a setting along another interval, as a share of its length."""
TRIES = 100
"""Draws, at most, until a branch has other settings than its better."""
INHERITED = ("train.seed",)
"""Settings that may vary in a population and that a branch keeps."""
CHANGEABLE = (
    *("train.rate", "train.rate_low", "train.clip"),
    *("model.alpha", "model.beta", "model.coherence", "model.sharpness", "model.temperature"),
    *("estep.parents", "estep.children", "estep.generations", "estep.selection"),
    *("estep.mutation", "estep.crossover", "estep.rate", "estep.draws"),
)
"""Settings that may change while a model trains, because its state does not depend on them."""


class Replacement(NamedTuple):
    """A trial that ends, and the better one that a branch continues in its place."""

    loser: int
    better: int


def choose_replacements(worths: Mapping[int, float]) -> list[Replacement]:
    """Return who is replaced by whom: the worst by the best, the next by the next best.

    Of equals the earlier trial is better. A trial of no worth, as one that failed, has no branches.
    """
    ranked = sorted(worths, key=lambda number: (-worths[number], number))
    count = count_replaced(len(ranked))
    betters = [number for number in ranked[:count] if worths[number] > -math.inf]
    if not betters:
        return []
    losers = ranked[: -count - 1 : -1]
    return [Replacement(loser, betters[i % len(betters)]) for i, loser in enumerate(losers)]


def perturb(
    space: Space, values: Mapping[str, Plain], chance: np.random.Generator
) -> dict[str, Plain]:
    """Return settings near those of a trial, within the axes of the space, and not the same.

    The seed, with which a repeated trial comes, is the parent's.
    """
    inherited = {key: values[key] for key in INHERITED if key in values}
    for _ in range(TRIES):
        perturbed: dict[str, Plain] = {}
        for axis in space.axes:
            if axis.applies(space.fixed | perturbed):
                perturbed[axis.key] = _perturb_value(axis, values.get(axis.key), chance)
        perturbed |= inherited
        if perturbed != values:
            break
    return perturbed


def _perturb_value(axis: Axis, value: Plain, chance: np.random.Generator) -> Plain:
    if axis.key in INHERITED:
        return value
    redrawn = chance.random() < REDRAWN
    if isinstance(axis.span, Choice):
        values = axis.span.values
        return values[chance.integers(len(values))] if redrawn or value not in values else value
    if redrawn or not isinstance(value, int | float):
        return _draw(axis.span, chance)
    return _move(axis.span, value, upwards=bool(chance.random() < 0.5))


def _draw(span: Interval, chance: np.random.Generator) -> float:
    """Return a number of an interval, each as likely as any other on its scale."""
    if span.log:
        number = math.exp(chance.uniform(math.log(span.low), math.log(span.high)))
    else:
        number = chance.uniform(span.low, span.high)
    return _within(span, number)


def _move(span: Interval, value: float, upwards: bool) -> float:
    """Return a number next to one of an interval; from the end of the interval it goes back."""
    moved = _moved(span, value, upwards)
    return _moved(span, value, not upwards) if moved == value else moved


def _moved(span: Interval, value: float, upwards: bool) -> float:
    sign = 1 if upwards else -1
    step = STEP * (span.high - span.low)
    target = value * FACTOR**sign if span.log else value + sign * step
    if isinstance(span.low, int):
        target = round(target)
        target = target if target != value else value + sign
    return _within(span, target)


def _within(span: Interval, number: float) -> float:
    """Return the number of an interval that is nearest, a whole one if its ends are whole."""
    nearest = min(max(number, span.low), span.high)
    return round(nearest) if isinstance(span.low, int) else float(nearest)
