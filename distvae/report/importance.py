"""How much of what differs between trials goes with each parameter, as Optuna's functional analysis
of variance has it.

Only parameters that all trials of a group have can be compared in it. So there is a group of all
trials, and where some parameters exist for some values of another only, one for each of its values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distvae.report.reading import Sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LEAST = 10
"""Fewer trials than this, or than so many for each parameter, show chance and little else."""
EACH = 4
DRAWN = 8
"""So often the trials are drawn anew, to see how much the shares depend on which ones were run."""
TREES = 16


@dataclass(frozen=True)
class Share:
    """A parameter's part in the variance of a figure."""

    name: str
    mean: float
    low: float
    high: float
    """Between which it lies when the trials are drawn anew."""


@dataclass(frozen=True)
class Group:
    """Trials with the same parameters."""

    about: str
    trials: "Sequence[FrozenTrial]"
    left_out: list[str]
    """Parameters that only some of them have."""

    @property
    def varied(self) -> list[str]:
        """The parameters that all have and that differ."""
        everywhere = set.intersection(*(set(trial.params) for trial in self.trials))
        names = [name for name in self.trials[0].params if name in everywhere]
        return [name for name in names if len({trial.params[name] for trial in self.trials}) > 1]

    @property
    def needed(self) -> int:
        """How many trials it takes."""
        return max(LEAST, EACH * len(self.varied))


def groups(sweep: Sweep) -> list[Group]:
    """All finished trials; and those of each value that decides which parameters there are."""
    finished = {trial.result.number for trial in sweep.finished}
    trials = [
        t
        for t in sweep.remembered
        if t.state.name == "COMPLETE" and t.number + 1 in finished and t.params
    ]
    if not trials:
        return []
    found = [Group("all trials", trials, _partial(trials))]
    if found[0].left_out:
        found += list(_within(trials, _deciding(sweep.facts["axes"])))
    return found


def _partial(trials: "Sequence[FrozenTrial]") -> list[str]:
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if any(name not in trial.params for trial in trials)]


def _deciding(axes: Sequence[Mapping[str, Any]]) -> str:
    """The parameter that most conditions ask about."""
    asked = [key for axis in axes for key in axis["when"]]
    return max(asked, key=asked.count, default="")


def _within(trials: "Sequence[FrozenTrial]", key: str) -> Iterator[Group]:
    for value in dict.fromkeys(trial.params.get(key) for trial in trials):
        chosen = [trial for trial in trials if trial.params.get(key) == value]
        if value is not None:
            yield Group(f"trials with {key} {value}", chosen, _partial(chosen))


def shares(group: Group, metric: int) -> list[Share]:
    """The part of each parameter in the variance of one figure, the largest first; none where
    nothing differs.
    """
    chance = np.random.default_rng(0)
    draws = [group.trials, *(_again(group.trials, chance) for _ in range(DRAWN))]
    found = [
        _importances(trials, group.varied, metric) for trials in draws if _differs(trials, metric)
    ]
    if not found or not _differs(group.trials, metric):
        return []
    whole, drawn = found[0], found[1:] or found
    spans = {name: [shares[name] for shares in drawn] for name in group.varied}
    told = [Share(name, whole[name], min(spans[name]), max(spans[name])) for name in group.varied]
    return sorted(told, key=lambda share: -share.mean)


def _again(trials: "Sequence[FrozenTrial]", chance: np.random.Generator) -> "list[FrozenTrial]":
    return [trials[place] for place in chance.integers(len(trials), size=len(trials))]


def _differs(trials: "Sequence[FrozenTrial]", metric: int) -> bool:
    return len({trial.values[metric] for trial in trials}) > 1


def _importances(
    trials: "Sequence[FrozenTrial]", names: list[str], metric: int
) -> dict[str, float]:
    import optuna

    study = optuna.create_study(directions=["maximize"] * len(trials[0].values))
    study.add_trials(trials)
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    told = optuna.importance.get_param_importances(
        study, evaluator=evaluator, params=names, target=lambda trial: trial.values[metric]
    )
    return {name: float(told.get(name, 0.0)) for name in names}
