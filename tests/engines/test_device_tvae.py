"""Scores and gradients in fixed shapes, held to the dense model in double precision."""

import pytest
import torch
from torch import Tensor

from distvae.engines import state_scores
from distvae.engines.device_tvae import DeviceTVAEEngine
from distvae.engines.state_scores import Scores
from distvae.interface import Batch, Sums
from distvae.models.population import pack
from distvae.models.truncated import LEFT_OUT, NEAR, KeptStates
from distvae.models.tvae import TVAE
from distvae.train.step import add
from tests import dense
from tests.engines.test_tvae_engine import parts

ROWS, KEPT = 40, 9
missing = pytest.mark.parametrize("missing", [0.0, 0.3])


@pytest.fixture(params=dense.VARIANTS, ids=str)
def model(request: pytest.FixtureRequest) -> TVAE:
    return dense.model(**request.param)


class Kept:
    """An E-step that keeps states."""

    def __init__(self, kept: KeptStates) -> None:
        self.kept = kept

    def kept_states(self, batch: Batch) -> KeptStates:
        return self.kept


def near(found: Tensor, expected: Tensor) -> None:
    assert (found.double() - expected.double()).abs().max() <= 1e-5 * expected.abs().max()


@missing
@pytest.mark.parametrize("decoded", [1, 200, 10**9])
def test_log_joints_are_those_of_the_dense_model(
    model: TVAE, missing: float, decoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_scores, "DECODED", decoded)
    batch, z = (
        dense.rows(ROWS, model, missing=missing),
        dense.some_states(ROWS, KEPT, model.code_size),
    )
    expected = dense.log_joint(model, batch, z)
    with torch.no_grad():
        found = Scores(model).present().score(batch, pack(z))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


@missing
@pytest.mark.parametrize("leaves_out", [False, True])
def test_gradient_and_sums_are_those_of_the_dense_model(
    model: TVAE, missing: float, leaves_out: bool
) -> None:
    batch, z = (
        dense.rows(ROWS, model, missing=missing),
        dense.some_states(ROWS, KEPT, model.code_size),
    )
    part = parts() if leaves_out else torch.full((ROWS, KEPT), NEAR)
    kept = Kept(KeptStates(pack(z), part.byte() if leaves_out else None))
    engine = DeviceTVAEEngine(model, kept)
    assert engine.differentiate(batch, dense.noise(batch), 2 * ROWS) == {}, "sums wait"
    sums = engine.sums()
    assert sums.pop("finite") == 1
    joint = dense.log_joint(model, batch, z).masked_fill(part == LEFT_OUT, -torch.inf)
    objective = joint.logsumexp(1).sum()
    near(sums["objective"], objective)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(-objective / (2 * ROWS), parameters)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        near(parameter.grad, gradient)
    posterior = model.posterior(batch, pack(z), kept.kept.part)
    statistics = model.statistics(batch, posterior, dense.noise(batch))
    assert sums.keys() == statistics.keys() | {"objective"}
    for name, value in statistics.items():
        near(sums[name], value)


@missing
def test_sums_of_many_steps_are_those_of_each(model: TVAE, missing: float) -> None:
    batch = dense.rows(ROWS, model, missing=missing)
    states = KeptStates(pack(dense.some_states(ROWS, KEPT, model.code_size)), parts().byte())
    kept = Kept(states)
    together, single = DeviceTVAEEngine(model, kept), DeviceTVAEEngine(model, kept)
    total: Sums = {}
    for rows in (slice(0, 16), slice(16, 32), slice(32, ROWS)):
        part, kept.kept = batch.part(rows), states.of_rows(rows)
        request = (part, dense.noise(part), ROWS)
        assert not together.differentiate(*request)
        add(total, single.differentiate(*request) | single.sums())
    sums = together.sums()
    assert sums.pop("finite") == 2, "whole steps"
    assert sums.keys() == total.keys() - {"finite"}
    for name, value in sums.items():
        near(value, total[name])


def test_hidden_layers_that_do_not_learn_yet_get_no_gradient() -> None:
    model = dense.model(hidden=(6, 6), linear=3)
    model.at(0)
    batch, z = dense.rows(ROWS, model), dense.some_states(ROWS, KEPT, model.code_size)
    DeviceTVAEEngine(model, Kept(KeptStates(pack(z)))).differentiate(
        batch, dense.noise(batch), ROWS
    )
    learning = [parameter.grad is not None for parameter in model.parameters()]
    assert learning == [parameter.requires_grad for parameter in model.parameters()]


def test_scores_follow_pi_and_the_variance() -> None:
    model = dense.model()
    scores, batch = Scores(model), dense.rows(ROWS, model)
    z = dense.some_states(ROWS, KEPT, model.code_size)
    with torch.no_grad():
        scores.present().score(batch, pack(z))
        model.pi.mul_(0.5)
        dense.variance(model).mul_(3)
        found = scores.present().score(batch, pack(z))
    expected = dense.log_joint(model, batch, z)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
