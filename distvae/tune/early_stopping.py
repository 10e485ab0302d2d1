"""The rules that stop trials early, where they are judged by a metric: those of Optuna's pruners,
which take one objective and no other.
"""

import statistics
from collections.abc import Mapping

Worths = Mapping[int, float]
"""The worth of a trial by epoch, the more the better."""

REDUCTION = 4
"""One in so many of the trials that reach a rung goes on."""
ENOUGH = 5
"""Trials that must have finished before the median of their judgments stops others."""


def is_rung(epoch: int, interval: int) -> bool:
    """Return whether successive halving decides after an epoch: the interval times 1, 4, 16, ..."""
    rung = interval
    while rung < epoch:
        rung *= REDUCTION
    return rung == epoch


def halves(own: Worths, others: Mapping[int, Worths], epoch: int, interval: int) -> bool:
    """Return whether asynchronous successive halving stops a trial after an epoch.

    It goes on if it is in the best quarter of those that have reached the rung so far, or the best
    while they are fewer than four.
    """
    if epoch not in own or not is_rung(epoch, interval):
        return False
    reached = [worths[epoch] for worths in others.values() if epoch in worths]
    better = sum(worth > own[epoch] for worth in reached)
    return better >= max(1, (len(reached) + 1) // REDUCTION)


def below_median(own: Worths, finished: Mapping[int, Worths], epoch: int) -> bool:
    """Return whether a trial's best until an epoch is below the median of those that finished."""
    if epoch not in own:
        return False
    reached = [worths[epoch] for worths in finished.values() if epoch in worths]
    best = max(worth for at, worth in own.items() if at <= epoch)
    return len(reached) >= ENOUGH and best < statistics.median(reached)
