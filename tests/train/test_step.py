"""The step and its schedule: halves add up to the whole, and rates follow their curve."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distvae.config import Train
from distvae.engines import choose_engine
from distvae.interface import Batch
from distvae.models.vsc import VSC
from distvae.numerics.noise import Noise
from distvae.train.loop import means
from distvae.train.session import build_trainer
from distvae.train.step import Adam, Ascent, rate
from distvae.train.team import ALONE
from tests import tiny

KINDS: list[dict[str, Any]] = [
    {"kind": "vae"},
    {"kind": "vae", "likelihood": "gaussian"},
    {"kind": "sdm", "dictionary": "learned", "atoms": 6, "coherence": 0.5},
    {"kind": "vsc"},
    {"kind": "vsc", "prior": "pseudo"},
]


def gradients(
    model: dict[str, Any], kind: str, rows: Tensor, of: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the gradients and sums of a worker that has some of the rows."""
    trainer = build_trainer(tiny.config(model=model), tiny.dataset())
    engine = choose_engine(kind, trainer.model, trainer.estep)
    x = torch.from_numpy(trainer.train[rows.numpy()])
    still = Adam(trainer.parameters, ALONE)  # at a rate of zero
    ascent = Ascent(trainer.model, trainer.estep, still, engine)
    sums = ascent.step(Batch(x, rows), Noise(0, 0, rows), of)
    return [p.grad for p in trainer.parameters if p.grad is not None], sums


@pytest.mark.parametrize("kind", ["auto", "autograd"])
@pytest.mark.parametrize("model", KINDS)
def test_two_workers_with_half_the_rows_each_equal_one(model: dict[str, Any], kind: str) -> None:
    rows = torch.arange(16)
    whole, sums = gradients(model, kind, rows, 16)
    halves = [gradients(model, kind, part, 16) for part in (rows[:5], rows[5:])]
    for one, *two in zip(whole, *(gradient for gradient, _ in halves), strict=True):
        torch.testing.assert_close(one, two[0] + two[1])
    for name, value in sums.items():
        torch.testing.assert_close(
            value, halves[0][1][name] + halves[1][1][name], rtol=1e-4, atol=1e-4
        )


@given(st.integers(0, 400))
def test_rates_follow_their_curves(step: int) -> None:
    steps, epochs = 10, 40
    warm = min(1.0, (step + 1) / 50)
    cosine = Train(schedule="cosine", rate=1e-2, rate_low=1e-3, warmup=50, epochs=epochs)
    expected = warm * (1e-3 + 9e-3 * (1 + math.cos(math.pi * step / 400)) / 2)
    assert rate(cosine, step, steps) == pytest.approx(expected)
    assert rate(Train(schedule="constant", rate=1e-2, warmup=0), step, steps) == 1e-2
    cyclical = Train(schedule="cyclical", rate=1e-2, rate_low=1e-4, warmup=0, cycle=4)
    half_way = (step % 40) / 20
    expected = 1e-4 + (1e-2 - 1e-4) * (half_way if half_way <= 1 else 2 - half_way)
    assert rate(cyclical, step, steps) == pytest.approx(expected)


def test_slabs_that_warm_up_within_no_step_are_cold_before_it_and_warm_from_then_on() -> None:
    model = build_trainer(
        tiny.config(model={"kind": "vsc", "prior": "pseudo", "slab_warmup": [5, 5]}), tiny.dataset()
    ).model
    assert isinstance(model, VSC)
    for step, warmth in ((0, 0), (4, 0), (5, 1), (math.inf, 1)):
        model.at(step)
        assert model.warmth == warmth


def test_the_sparsity_of_an_epoch_is_the_mean_over_rows_that_have_one() -> None:
    sums = {"bound": 12.0, "hoyer": 1.5, "sparse_rows": 3.0}
    found = means({name: torch.tensor(value) for name, value in sums.items()}, 4)
    assert (found["bound"], found["hoyer"]) == (3.0, 0.5)
