"""Figures of a trial: means over its seeds, and differences from what was published."""

import statistics
from collections.abc import Mapping, Sequence

from distvae.numerics.figures import without_spreads


def compare_with_published(
    figures: Mapping[str, float], published: Mapping[str, float]
) -> dict[str, float]:
    """Return the published values of figures, and how far these figures are above them."""
    known = {name: value for name, value in published.items() if name in figures}
    values = {f"{name}_published": value for name, value in known.items()}
    differences = {f"{name}_difference": figures[name] - value for name, value in known.items()}
    return values | differences


def average_figures(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means of the figures that all seeds have, with their standard deviations."""
    if len(found) == 1:
        return dict(found[0])
    shared = [name for name in found[0] if all(name in figures for figures in found)]
    values = {name: [figures[name] for figures in found] for name in shared}
    spread_of = without_spreads(shared)
    averages = {name: statistics.fmean(values[name]) for name in shared}
    return averages | {f"{name}_spread": statistics.stdev(values[name]) for name in spread_of}
