"""The step: halves of the rows add up to the whole, Adam is torch's, rates follow their curves."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from distvae.config import Train
from distvae.interface import Batch
from distvae.models.vsc import VSC
from distvae.numerics.noise import Noise
from distvae.train.loop import means
from distvae.train.session import build_trainer
from distvae.train.step import Adam, EagerSteps, rate
from distvae.train.team import ALONE, Team
from tests import tiny
from tests.train.crew import Crew

KINDS: list[dict[str, Any]] = [
    {"kind": "vae", "likelihood": "gaussian"},
    {"kind": "sdm", "dictionary": "learned", "atoms": 6, "coherence": 0.5},
    {"kind": "vsc", "prior": "pseudo"},
]


def gradients(model: dict[str, Any], rows: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the gradients and sums of a worker that has some of 16 rows."""
    trainer = build_trainer(tiny.config(model=model), tiny.dataset())
    x = torch.from_numpy(trainer.train[rows.numpy()])
    still = Adam(trainer.parameters, ALONE)  # at a rate of zero
    sums = EagerSteps(trainer.model, trainer.estep, still).step(
        Batch(x, rows), Noise(0, 0, rows), 16
    )
    return [p.grad for p in trainer.parameters if p.grad is not None], sums


@pytest.mark.parametrize("model", KINDS)
def test_two_workers_with_half_the_rows_each_equal_one(model: dict[str, Any]) -> None:
    rows = torch.arange(16)
    whole, sums = gradients(model, rows)
    (one, sums_of_one), (two, sums_of_two) = (gradients(model, r) for r in (rows[:5], rows[5:]))
    for expected, *parts in zip(whole, one, two, strict=True):
        torch.testing.assert_close(expected, parts[0] + parts[1])
    for name, value in sums.items():
        both = sums_of_one[name] + sums_of_two[name]
        torch.testing.assert_close(value, both, rtol=1e-4, atol=1e-4)


def test_slabs_that_warm_up_within_no_step_are_cold_before_it_and_warm_from_then_on() -> None:
    model = build_trainer(
        tiny.config(model={"kind": "vsc", "prior": "pseudo", "slab_warmup": [5, 5]}), tiny.dataset()
    ).model
    assert isinstance(model, VSC)
    for step, warmth in ((4, 0), (5, 1), (math.inf, 1)):
        model.at(step)
        assert model.warmth == warmth


def test_the_sparsity_of_an_epoch_is_the_mean_over_rows_that_have_one() -> None:
    sums = {"bound": 12.0, "hoyer": 1.5, "sparse_rows": 3.0}
    found = means({name: torch.tensor(value) for name, value in sums.items()}, 4)
    assert (found["bound"], found["hoyer"]) == (3.0, 0.5)


SHAPES = [(37, 5), (5,), (), (0,), (1, 3, 4)]
STEPS, LATE = 12, 5
RATES = [0.01 * (1 + step % 4) for step in range(STEPS)]
Arrays = list[NDArray[np.float64]]


def beginning(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def drawn_gradients(rank: int, step: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return the gradients of one worker, over many magnitudes."""
    generator = torch.Generator().manual_seed(100 * rank + step)
    return [
        torch.randn(s, generator=generator, dtype=dtype) * 10.0 ** (step % 5 - 3) for s in SHAPES
    ]


def peer(
    size: int, dtype: torch.dtype = torch.float64, clip: float = math.inf
) -> tuple[list[nn.Parameter], dict[str, Tensor]]:
    """Apply torch's Adam to the summed gradients. The first parameter learns late.

    Return the parameters, and the moments by the names that checkpoints give them.
    """
    parameters = beginning(dtype)
    adam = torch.optim.Adam(parameters, fused=True)
    for step, chosen_rate in enumerate(RATES):
        adam.param_groups[0]["lr"] = chosen_rate
        for k, parameter in enumerate(parameters):
            summands = [drawn_gradients(rank, step, dtype)[k] for rank in range(size)]
            parameter.grad = None if k == 0 and step < LATE else torch.stack(summands).sum(0)
        nn.utils.clip_grad_norm_(parameters, clip)
        adam.step()
    return parameters, {
        f"optimizer.{place}.{name}": value
        for place, parameter in enumerate(parameters)
        for name, value in adam.state[parameter].items()
    }


def ours(
    team: Team, dtype: torch.dtype = torch.float64, clip: float | None = None
) -> tuple[list[nn.Parameter], Adam]:
    parameters = beginning(dtype)
    adam = Adam(parameters, team, clip)
    for step, adam.rate in enumerate(RATES):
        adam.forget()
        parameters[0].requires_grad_(step >= LATE)
        for parameter, gradient in zip(
            parameters, drawn_gradients(team.rank, step, dtype), strict=True
        ):
            parameter.grad = gradient if parameter.requires_grad else None
        adam.step()
    return parameters, adam


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alone_it_is_torchs_to_the_last_bit(dtype: torch.dtype) -> None:
    (parameters, adam), (expected, moments) = ours(ALONE, dtype), peer(1, dtype)
    for found, other in zip(parameters, expected, strict=True):
        assert torch.equal(found, other)
    assert adam.state().keys() == moments.keys()
    assert all(torch.equal(adam.state()[name], value) for name, value in moments.items())


def test_long_gradients_are_shortened_as_torch_does() -> None:
    (parameters, _), (expected, _) = ours(ALONE, clip=1.0), peer(1, clip=1.0)
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter, wanted, rtol=1e-12, atol=1e-12)


def train_briefly(team: Team) -> tuple[Arrays, dict[str, NDArray[Any]]]:
    parameters, adam = ours(team)
    moments = {name: value.numpy().copy() for name, value in adam.state().items()}
    return [p.detach().numpy().copy() for p in parameters], moments


@pytest.mark.slow
def test_of_several_workers_it_is_that_of_the_sum_and_the_same_on_all(crew: Crew) -> None:
    expected, moments = peer(crew.size)
    (first, kept), *others = crew.all(train_briefly)
    for found, other in zip(first, expected, strict=True):
        np.testing.assert_allclose(found, other.detach().numpy(), rtol=1e-12)
    for name, value in moments.items():
        np.testing.assert_allclose(kept[name], value.numpy(), rtol=1e-12)
    for again, _ in others:
        assert [a.tobytes() for a in again] == [a.tobytes() for a in first]


EPOCHS, BASE, BATCHES = 6, 16, 40
"""Epochs, the base batch, and its steps in an epoch."""
GROWTH = {"none": 1.0, "root": 2.0, "linear": 4.0}
"""Factors for batches of four times the size."""


def rates(**settings: Any) -> list[float]:
    config = Train(epochs=EPOCHS, **settings)
    steps = BATCHES * BASE // config.batch
    return [rate(config, step, steps) for step in range(EPOCHS * steps)]


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


@pytest.mark.parametrize("scale", GROWTH)
@pytest.mark.parametrize("schedule", ["constant", "cosine", "cyclical"])
def test_a_larger_batch_has_the_rates_of_the_same_rows_times_a_factor_that_grows_over_an_epoch(
    scale: str, schedule: str
) -> None:
    own: dict[str, Any] = {"schedule": schedule, "cycle": 3, "rate_low": 1e-4, "warmup": 0}
    base = rates(batch=BASE, **own)
    larger = rates(batch=4 * BASE, base_batch=BASE, scale_rate=scale, **own)
    epoch = BATCHES // 4
    for step, found in enumerate(larger):
        factor = 1 + (GROWTH[scale] - 1) * min(1, (step + 1) / epoch)
        assert found == pytest.approx(factor * base[4 * step])


def test_a_warmup_takes_as_many_rows_whatever_the_batch() -> None:
    base = rates(batch=BASE, schedule="constant", warmup=100)
    larger = rates(batch=4 * BASE, base_batch=BASE, schedule="constant", warmup=100)
    assert larger == pytest.approx([base[4 * step + 3] for step in range(len(larger))])
    own = rates(batch=4 * BASE, schedule="constant", warmup=100)
    assert own[:50] == pytest.approx(base[:50])  # without a base batch, steps are counted


@pytest.mark.parametrize(
    ("train", "beta"),
    [({"batch": 8}, 0.4), ({"batch": 32, "base_batch": 8}, 0.4), ({"batch": 32}, 0.1)],
)
def test_the_warmups_of_a_model_take_as_many_rows_too(train: dict[str, Any], beta: float) -> None:
    model = {"beta": 1.0, "beta_warmup": 20}
    trainer = build_trainer(tiny.config(model=model, train=train), tiny.dataset(400))
    trainer.position.batch = 64 // train["batch"]
    trainer.step(np.arange(train["batch"]))
    assert vars(trainer.model)["beta"] == pytest.approx(beta)
