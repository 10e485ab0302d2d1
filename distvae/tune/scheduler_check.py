"""Checks that a scheduler suits the space in which it stops or replaces trials."""

from distvae.files.refusal import Refusal
from distvae.tune.axes import Axis, Choice
from distvae.tune.population import CHANGEABLE, INHERITED
from distvae.tune.space import SHARE, Space

CHANGE_THE_BOUND = ("data.", "model.kind", "model.likelihood")
"""Keys that decide the prior, the likelihood or the data: bounds do not compare across them."""
PSEUDO = "pseudo"
"""The prior of VSC whose objective is a bound only given the pseudo-inputs it selects."""


def bounds_differ_along(axis: Axis) -> bool:
    """Return whether bounds do not compare where an axis varies."""
    values = axis.span.values if isinstance(axis.span, Choice) else ()
    is_pseudo = axis.key == "model.prior" and PSEUDO in values
    return is_pseudo or axis.key.startswith(CHANGE_THE_BOUND)


def check_scheduler(space: Space) -> None:
    """Refuse a space that does not suit its scheduler, or a judge that nobody asks."""
    if space.scheduler == "none":
        if space.judge is not None:
            raise Refusal("judge: nobody asks it; scheduler: asha, median or population expected")
        return
    if space.judge is None and space.scheduler != "population":
        _check_bounds(space)
    elif space.seeds > 1:
        raise Refusal(f"seeds: {space.seeds}, but a trial is judged by one run; 1 expected")
    if space.scheduler == "population":
        _check_population(space)


def _check_bounds(space: Space) -> None:
    """Refuse to compare bounds where they do not compare, or do not rank the trials."""
    instead = "; judge: {interval: EPOCHS} compares a metric instead"
    for axis in space.axes:
        if bounds_differ_along(axis):
            raise Refusal(
                f"scheduler: {space.scheduler} compares bounds, which do not compare where"
                f" {axis.key} varies{instead}"
            )
    if len(space.metrics) > 1:
        raise Refusal(
            f"scheduler: {space.scheduler} serves one figure; metrics names"
            f" {', '.join(space.metrics)}{instead}"
        )


def _check_population(space: Space) -> None:
    """Refuse a population that cannot be trained generation by generation."""
    if space.judge is None:
        raise Refusal(
            "scheduler: population replaces trials by a metric; judge: {interval: EPOCHS} expected"
        )
    if space.search != "random":
        raise Refusal(
            f"search: {space.search}, but a population begins with trials drawn at random; random"
            " expected"
        )
    least = max(SHARE, sum(1 for _ in space.branches()))
    if space.trials < least:
        raise Refusal(f"trials: a population of {space.trials}; at least {least} expected")
    train = space.base.train
    for name in ("patience", "stop_at_noise", "sigma"):
        if value := getattr(train, name):
            raise Refusal(
                f"train.{name}: {str(value).lower()}, but the trials of a population train equally"
                " long; omit it"
            )
    for axis in space.axes:
        is_buffer = axis.key == "model.alpha" and space.base.model.kind == "gumbel"
        if axis.key not in (*CHANGEABLE, *INHERITED) or is_buffer:
            raise Refusal(
                f"{axis.path}: trials of a population take over weights and states of others, to"
                f" which {axis.key} gives their shape or meaning; one of"
                f" {', '.join([*CHANGEABLE, *INHERITED])} expected"
            )
    if not any(axis.key in CHANGEABLE for axis in space.axes):
        raise Refusal("axes: one that may change while a model trains expected, such as train.rate")


def refuse_workers(space: Space, workers: bool) -> None:
    """Refuse trials of several workers where trials are judged while they train."""
    if space.judge is not None and workers:
        raise Refusal(
            "--workers: trials that are judged while they train do so in one process each; no"
            " --workers expected"
        )
