"""The importance of each parameter: its share of the variance between trials (Optuna's fANOVA).

Only parameters that all finished trials have are compared.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from distvae.report.reading import Sweep
from distvae.tasks.pictures.canvas import PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

MIN_TRIALS = 10
"""With fewer trials, the shares are mostly noise."""
TRIALS_PER_PARAMETER = 4
RESAMPLES = 8
"""Bootstrap resamples of the trials, which show how strongly the shares depend on the sample of
trials.
"""
TREES = 16


class Share(NamedTuple):
    """The share of one parameter in the variance of a metric."""

    name: str
    mean: float
    low: float
    high: float
    """Lower and upper ends of the range over bootstrap resamples of the trials."""


def sampled_trials(sweep: Sweep) -> "list[FrozenTrial]":
    """Return the finished trials from the sampler's study."""
    finished = {trial.result.number for trial in sweep.finished}
    complete = [trial for trial in sweep.sampled if trial.state.name == "COMPLETE"]
    return [trial for trial in complete if trial.number + 1 in finished and trial.params]


def varied(trials: "Sequence[FrozenTrial]") -> list[str]:
    """Return the parameters that all trials have and that vary."""
    common = set.intersection(*(set(trial.params) for trial in trials)) if trials else set()
    return [name for name in sorted(common) if len({t.params[name] for t in trials}) > 1]


def needed(names: Sequence[str]) -> int:
    """Return the number of trials that meaningful shares of these parameters need."""
    return max(MIN_TRIALS, TRIALS_PER_PARAMETER * len(names))


def shares(trials: "Sequence[FrozenTrial]", names: Sequence[str], metric: int) -> list[Share]:
    """Return the share of each parameter in the variance of a metric, largest first.

    Return no shares if the metric hardly varies, or if its variance comes from no parameter.
    """
    whole = _importances(trials, names, metric)
    generator = np.random.default_rng(0)
    resampled = [whole]
    for _ in range(RESAMPLES * bool(whole)):
        places = generator.integers(len(trials), size=len(trials))
        resampled.append(_importances([trials[place] for place in places], names, metric))
    found = []
    for name, mean in whole.items():
        values = [each[name] for each in resampled if each]
        found.append(Share(name, mean, min(values), max(values)))
    return sorted(found, key=lambda share: -share.mean)


def _importances(
    trials: "Sequence[FrozenTrial]", names: Sequence[str], metric: int
) -> dict[str, float]:
    """Return the share of each parameter, or no shares if the forest finds no variance."""
    import optuna

    if len({trial.values[metric] for trial in trials}) < 2:
        return {}
    study = optuna.create_study(directions=["maximize"] * len(trials[0].values))
    study.add_trials(trials)
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    try:
        importances = optuna.importance.get_param_importances(
            study,
            evaluator=evaluator,
            params=list(names),
            target=lambda trial: trial.values[metric],
        )
    except RuntimeError:  # "zero total variance in all trees"
        return {}
    return {name: float(importances.get(name, 0.0)) for name in names}


def draw_shares(found: Sequence[Share]) -> "Figure":
    """Draw the share of each parameter as a bar, with its range over resamples as a line."""
    figure = new_figure(5.0, 0.8 + 0.3 * len(found))
    axes = figure.subplots()
    rows = range(len(found))
    axes.barh(rows, [share.mean for share in found], color=PALETTE[0], height=0.6)
    axes.hlines(rows, [s.low for s in found], [s.high for s in found], color="black")
    axes.set(xlabel="share of the variance", xlim=(0, 1))
    axes.set_yticks(rows, [share.name for share in found], parse_math=False)
    axes.invert_yaxis()
    return figure
