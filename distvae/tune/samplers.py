"""Optuna's samplers, which draw the trials of a space, and pruners, which stop poor ones."""

import warnings
from typing import TYPE_CHECKING

from distvae.tune.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SEEDS = 2**32
"""The number of seeds that a sampler takes."""


def make_sampler(space: Space, begun: int) -> "BaseSampler":
    """Return the sampler of the next trial, after so many have begun."""
    import optuna

    samplers = optuna.samplers
    seed = (1_000_003 * space.seed + begun) % SEEDS
    if space.search in ("grid", "random"):  # all trials of a grid are enqueued already
        return samplers.RandomSampler(seed)
    if space.search == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, space.trials // 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return samplers.TPESampler(seed=seed, constant_liar=True)


def make_pruner(space: Space) -> "BasePruner":
    """Return Optuna's pruner for the scheduler of a space."""
    import optuna

    pruners = optuna.pruners
    if space.scheduler == "median":
        return pruners.MedianPruner()
    if space.scheduler == "asha":
        return pruners.SuccessiveHalvingPruner()
    return pruners.NopPruner()


def sampler_of_rest(space: Space, study: "Study", index: int) -> "BaseSampler":
    """Return the sampler of a trial that has begun, and whose drawing a crash may have interrupted.

    Optuna draws no setting twice, so the sampler would give a setting that is left the value of
    one that was drawn before. The trial is therefore drawn once more, in memory, and takes from
    there what it does not have.
    """
    import optuna

    trials = study.get_trials(deepcopy=False)
    copy = optuna.create_study(directions=study.directions, sampler=make_sampler(space, index))
    copy.add_trials(trials[:index])
    copy.enqueue_trial(trials[index].system_attrs.get("fixed_params", {}))
    again = copy.ask()
    space.suggest(again)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(again.params, make_sampler(space, index))
