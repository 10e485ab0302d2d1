"""What the shares of parameters say where it is known which one decides."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from distvae.report.importance import Group, groups, shares
from distvae.report.reading import Sweep, Trial
from distvae.tune.results import Result

AXES: list[dict[str, Any]] = [{"key": "model.alpha", "when": {"model.kind": ["vsc"]}}]
FACTS: dict[str, Any] = {"axes": AXES, "metrics": {"error": "min", "hoyer": "max"}}
SPANS = {
    "model.kind": CategoricalDistribution(["vae", "vsc"]),
    "model.latent": IntDistribution(2, 64),
    "train.batch": IntDistribution(16, 64),
    "model.alpha": FloatDistribution(0.1, 0.9),
}
Figures = Callable[[dict[str, Any]], list[float]]


def sweep(count: int, figures: Figures) -> Sweep:
    """Trials drawn at random, and what they are worth."""
    chance, frozen_trials = random.Random(0), list[Any]()
    for number in range(count):
        params: dict[str, Any] = {
            "model.kind": ("vae", "vsc")[number % 2],
            "model.latent": chance.randint(2, 64),
        }
        params["train.batch"] = chance.randint(16, 64)
        if params["model.kind"] == "vsc":
            params["model.alpha"] = chance.uniform(0.1, 0.9)
        spans = {name: SPANS[name] for name in params}
        frozen_trials.append(
            optuna.trial.create_trial(params=params, distributions=spans, values=figures(params))
        )
        frozen_trials[-1].number = number
    trials = [
        Trial(Result(trial.number + 1, trial.params, "finished"), []) for trial in frozen_trials
    ]
    return Sweep(Path(), FACTS, trials, True, frozen_trials)


def decided(params: dict[str, Any]) -> list[float]:
    """The error depends on the number of latents alone; how sparse codes are on alpha, or else on
    the batch.
    """
    return [float(params["model.latent"]), params.get("model.alpha", params["train.batch"] / 64)]


@pytest.mark.slow
def test_the_parameter_that_decides_has_the_largest_share() -> None:
    every, vae, vsc = groups(sweep(40, decided))
    assert [group.about for group in (vae, vsc)] == [
        "trials with model.kind vae",
        "trials with model.kind vsc",
    ]
    assert every.left_out == ["model.alpha"]
    found = shares(every, 0)
    assert found[0].name == "model.latent"
    assert found[0].mean > 0.9
    assert sum(share.mean for share in found) == pytest.approx(1)
    assert set(vsc.varied) == {"model.latent", "train.batch", "model.alpha"}
    assert shares(vsc, 1)[0].name == "model.alpha"
    assert shares(vae, 1)[0].name == "train.batch"


def test_what_chance_decides_has_wide_spans() -> None:
    chance = random.Random(1)
    every, *_ = groups(sweep(16, lambda params: [chance.random(), 0.0]))
    spans = [share.high - share.low for share in shares(every, 0)]
    assert max(spans) > 0.3


def test_a_figure_that_never_differs_has_no_shares() -> None:
    assert shares(groups(sweep(12, lambda params: [1.0, params["model.latent"]]))[0], 0) == []


def test_figures_that_hardly_differ_have_no_shares() -> None:
    every, *_ = groups(sweep(12, lambda params: [1.0 + 1e-9 * (params["train.batch"] > 40), 0.0]))
    assert shares(every, 0) == []


def test_figures_that_differ_where_no_parameter_does_have_no_shares() -> None:
    spans = {name: SPANS[name] for name in ("model.latent", "train.batch")}
    trials = []
    for number in range(12):
        params = {"model.latent": 2 + number // 11, "train.batch": 16 + number // 11}
        values = [float(number % 2)] if number < 2 else [0.5]
        trials.append(optuna.trial.create_trial(params=params, distributions=spans, values=values))
    group = Group("all trials", trials, [])
    assert group.varied == ["model.latent", "train.batch"]
    assert all(0 <= share.low <= share.high <= 1 for share in shares(group, 0))


def test_more_parameters_take_more_trials() -> None:
    every, vae, vsc = groups(sweep(12, decided))
    assert (every.needed, vae.needed, vsc.needed) == (12, 10, 12)
