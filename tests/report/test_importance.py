"""The shares of parameters in cases where the decisive parameter is known."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from distvae.report.reading import Sweep, Trial
from distvae.report.sweeps import needed, sampled_trials, shares, varied
from distvae.tune.results import Result

SPANS = {
    "model.kind": CategoricalDistribution(["vae", "vsc"]),
    "model.latent": IntDistribution(2, 64),
    "train.batch": IntDistribution(16, 64),
    "model.alpha": FloatDistribution(0.1, 0.9),
}
COMMON = ["model.kind", "model.latent", "train.batch"]


def sampled(count: int, figure: Callable[[dict[str, Any]], float]) -> list[FrozenTrial]:
    """Trials drawn at random, and their figure."""
    chance, trials = random.Random(0), []
    for number in range(count):
        params: dict[str, Any] = {
            "model.kind": ("vae", "vsc")[number % 2],
            "model.latent": chance.randint(2, 64),
            "train.batch": chance.randint(16, 64),
        }
        if params["model.kind"] == "vsc":
            params["model.alpha"] = chance.uniform(0.1, 0.9)
        spans = {name: SPANS[name] for name in params}
        trials.append(create_trial(params=params, distributions=spans, values=[figure(params)]))
        trials[-1].number = number
    return trials


def test_the_parameter_that_decides_has_the_largest_share() -> None:
    found = shares(sampled(40, lambda params: float(params["model.latent"])), COMMON, 0)
    assert found[0].name == "model.latent"
    assert found[0].mean > 0.9
    assert sum(share.mean for share in found) == pytest.approx(1)
    assert all(0 <= share.low <= share.mean <= share.high <= 1 for share in found)


def test_a_figure_that_hardly_differs_has_no_shares() -> None:
    trials = sampled(12, lambda params: 1.0 + 1e-9 * (params["train.batch"] > 40))
    assert shares(trials, COMMON, 0) == []


def test_parameters_of_all_finished_trials_are_compared() -> None:
    trials = sampled(12, lambda params: 1.0)
    results = [Result(n + 1, {}, "failed" if n == 3 else "finished") for n in range(12)]
    sweep = Sweep(Path(), {}, [Trial(result, []) for result in results], True, trials)
    assert [trial.number for trial in sampled_trials(sweep)] == [0, 1, 2, *range(4, 12)]
    assert varied(sampled_trials(sweep)) == COMMON
    assert varied([]) == []
    assert (needed(COMMON[:1]), needed(COMMON)) == (10, 12)
