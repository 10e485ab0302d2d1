"""The importance of each parameter: its share of the variance between trials (Optuna's fANOVA).

Only parameters that all trials of a group have can be compared in it. So there is a group of all
trials. Where some parameters exist only for some values of another, such as `model.kind`, each of
these values has a group of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distvae.report.reading import Sweep
from distvae.tune.axis_facts import AxisFacts

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MIN_TRIALS = 10
"""With fewer trials the shares show little but chance."""
TRIALS_PER_PARAMETER = 4
RESAMPLES = 8
"""Bootstrap resamples of the trials, which show how much the shares depend on the trials run."""
TREES = 16


@dataclass(frozen=True)
class Share:
    """The share of one parameter in the variance of a figure."""

    name: str
    mean: float
    low: float
    high: float
    """The range over bootstrap resamples of the trials."""


@dataclass(frozen=True)
class Group:
    """Trials with the same parameters."""

    about: str
    trials: "Sequence[FrozenTrial]"
    left_out: list[str]
    """Parameters that only some of the trials have."""

    @property
    def varied(self) -> list[str]:
        """The parameters that all trials have and that differ."""
        everywhere = set.intersection(*(set(trial.params) for trial in self.trials))
        names = [name for name in self.trials[0].params if name in everywhere]
        return [name for name in names if len({trial.params[name] for trial in self.trials}) > 1]

    @property
    def needed(self) -> int:
        """The number of trials that the shares need to mean something."""
        return max(MIN_TRIALS, TRIALS_PER_PARAMETER * len(self.varied))


def groups(sweep: Sweep) -> list[Group]:
    """Group the finished trials: all of them, and those of each value that conditions ask for."""
    finished = {trial.result.number for trial in sweep.finished}
    trials = []
    for trial in sweep.sampled:
        complete = trial.state.name == "COMPLETE" and trial.number + 1 in finished
        if complete and trial.params:
            trials.append(trial)
    if not trials:
        return []
    everything = Group("all trials", trials, _partial(trials))
    if not everything.left_out:
        return [everything]
    return [everything, *_group_by(trials, _condition_key(sweep.facts["axes"]))]


def _partial(trials: "Sequence[FrozenTrial]") -> list[str]:
    """Return the parameters that only some trials have."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if any(name not in trial.params for trial in trials)]


def _condition_key(axes: Sequence[AxisFacts]) -> str:
    """Return the parameter that most conditions ask for."""
    keys = [key for axis in axes for key in axis["when"]]
    return max(keys, key=keys.count, default="")


def _group_by(trials: "Sequence[FrozenTrial]", key: str) -> Iterator[Group]:
    for value in dict.fromkeys(trial.params.get(key) for trial in trials):
        chosen = [trial for trial in trials if trial.params.get(key) == value]
        if value is not None:
            yield Group(f"trials with {key} {value}", chosen, _partial(chosen))


def shares(group: Group, metric: int) -> list[Share]:
    """Return each parameter's share in the variance of a figure, largest first.

    Return none where the figure hardly differs, or differs where no parameter does.
    """
    whole = _importances(group.trials, group.varied, metric)
    if not whole:
        return []
    generator = np.random.default_rng(0)
    drawn = [_resample(group.trials, generator) for _ in range(RESAMPLES)]
    resampled = [_importances(trials, group.varied, metric) for trials in drawn]
    found = []
    for name in group.varied:
        range_of = [each[name] for each in resampled if each] or [whole[name]]
        found.append(Share(name, whole[name], min(range_of), max(range_of)))
    return sorted(found, key=lambda share: -share.mean)


def _resample(
    trials: "Sequence[FrozenTrial]", generator: np.random.Generator
) -> "list[FrozenTrial]":
    return [trials[place] for place in generator.integers(len(trials), size=len(trials))]


def _differs(trials: "Sequence[FrozenTrial]", metric: int) -> bool:
    return len({trial.values[metric] for trial in trials}) > 1


def _importances(
    trials: "Sequence[FrozenTrial]", names: list[str], metric: int
) -> dict[str, float]:
    """Return the share of each parameter, none where the forest finds no variance to share."""
    import optuna

    if not _differs(trials, metric):
        return {}
    study = optuna.create_study(directions=["maximize"] * len(trials[0].values))
    study.add_trials(trials)
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    try:
        importances = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=names, target=lambda trial: trial.values[metric]
        )
    except RuntimeError:  # "zero total variance in all trees"
        return {}
    return {name: float(importances.get(name, 0.0)) for name in names}
