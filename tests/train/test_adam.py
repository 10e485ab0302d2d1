"""Adam against torch's own, alone and along the gradients of several workers."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distvae.train.step import Adam
from distvae.train.team import ALONE, Team
from tests.train.crew import Crew, crew_of

SHAPES = [(37, 5), (5,), (), (0,), (1, 3, 4)]
STEPS, LATE = 12, 5
RATES = [0.01 * (1 + step % 4) for step in range(STEPS)]
Arrays = list[NDArray[np.float64]]


def beginning(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def gradients(rank: int, step: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return the gradients of one worker, over many magnitudes."""
    generator = torch.Generator().manual_seed(100 * rank + step)
    return [
        torch.randn(s, generator=generator, dtype=dtype) * 10.0 ** (step % 5 - 3) for s in SHAPES
    ]


def peer(
    size: int, dtype: torch.dtype = torch.float64, clip: float = math.inf
) -> tuple[list[nn.Parameter], list[dict[str, Tensor]]]:
    """Apply torch's Adam to the summed gradients. The first parameter learns late."""
    parameters = beginning(dtype)
    adam = torch.optim.Adam(parameters, fused=True)
    for step, rate in enumerate(RATES):
        adam.param_groups[0]["lr"] = rate
        for k, parameter in enumerate(parameters):
            summands = [gradients(rank, step, dtype)[k] for rank in range(size)]
            parameter.grad = None if k == 0 and step < LATE else torch.stack(summands).sum(0)
        nn.utils.clip_grad_norm_(parameters, clip)
        adam.step()
    return parameters, [adam.state[parameter] for parameter in parameters]


def named(moments: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return moments by the names that checkpoints give them."""
    return {
        f"optimizer.{place}.{name}": value
        for place, own in enumerate(moments)
        for name, value in own.items()
    }


def ours(
    team: Team, dtype: torch.dtype = torch.float64, clip: float | None = None
) -> tuple[list[nn.Parameter], Adam]:
    parameters = beginning(dtype)
    adam = Adam(parameters, team, clip)
    for step, adam.rate in enumerate(RATES):
        adam.forget()
        parameters[0].requires_grad_(step >= LATE)
        for parameter, gradient in zip(parameters, gradients(team.rank, step, dtype), strict=True):
            parameter.grad = gradient if parameter.requires_grad else None
        adam.step()
    return parameters, adam


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alone_it_is_torchs_to_the_last_bit(dtype: torch.dtype) -> None:
    (parameters, adam), (expected, moments) = ours(ALONE, dtype), peer(1, dtype)
    for found, other in zip(parameters, expected, strict=True):
        assert torch.equal(found, other)
    assert adam.state().keys() == named(moments).keys()
    assert all(torch.equal(adam.state()[name], value) for name, value in named(moments).items())


@pytest.fixture(
    scope="module",
    params=[2, 3],
)
def crew(request: pytest.FixtureRequest) -> Iterator[Crew]:
    with crew_of(request.param) as crew:
        yield crew


def train_briefly(team: Team) -> tuple[Arrays, dict[str, NDArray[Any]]]:
    parameters, adam = ours(team)
    moments = {name: value.numpy().copy() for name, value in adam.state().items()}
    return [p.detach().numpy().copy() for p in parameters], moments


def test_of_several_workers_it_is_that_of_the_sum_and_the_same_on_all(crew: Crew) -> None:
    expected, moments = peer(crew.size)
    (first, kept), *others = crew.all(train_briefly)
    for found, other in zip(first, expected, strict=True):
        np.testing.assert_allclose(found, other.detach().numpy(), rtol=1e-12)
    for name, value in named(moments).items():
        np.testing.assert_allclose(kept[name], value.numpy(), rtol=1e-12)
    for again, _ in others:
        assert [a.tobytes() for a in again] == [a.tobytes() for a in first]


def test_moments_that_were_kept_are_gone_on_from() -> None:
    parameters, adam = ours(ALONE)
    again = [nn.Parameter(p.detach().clone()) for p in parameters]
    resumed = Adam(again, ALONE)
    resumed.load(adam.state())
    for one in (adam, resumed):
        for k, parameter in enumerate(one.parameters):
            parameter.grad = gradients(0, STEPS)[k]
        one.rate = 0.1
        one.step()
    assert all(torch.equal(a, b) for a, b in zip(parameters, again, strict=True))


@pytest.mark.parametrize("clip", [1e-3, 1.0, 30.0])
def test_long_gradients_are_shortened_as_torch_does(clip: float) -> None:
    (parameters, _), (expected, _) = ours(ALONE, clip=clip), peer(1, clip=clip)
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter, wanted, rtol=1e-12, atol=1e-12)


def test_a_gradient_that_is_not_finite_stays_so_when_it_is_shortened() -> None:
    parameters = beginning()
    adam = Adam(parameters, ALONE, 1.0)
    adam.rate = 0.1
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, math.inf)
    adam.step()
    assert parameters[0].isnan().all()
