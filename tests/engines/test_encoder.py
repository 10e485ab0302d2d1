"""Gradients by hand in operations of torch against autograd, for every model that they serve."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distvae.engines.encoder import EncoderEngine, find_encoder_engine
from distvae.estep import assemble
from distvae.interface import Batch, Projects, Scheduled, Sums, prepare
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise
from distvae.numerics.rows import Lanes
from distvae.train.step import Adam, EagerSteps, add
from distvae.train.team import ALONE
from tests import tiny

Settings = dict[str, Any]
INPUTS = ["raw", "standard", "log", "log_standard"]
ACTIVATIONS = ["tanh", "relu", "leaky_relu", "silu"]
WIDTHS = st.lists(st.integers(1, 20), max_size=2)
STEP = 10.0
"""Within the warm-ups."""
MODELS: list[Settings] = [
    {"kind": "vae"},
    {"kind": "vae", "beta": 3.0, "beta_warmup": 20},
    {"kind": "sdm"},
    {"kind": "sdm", "dictionary": "dct", "atoms": 7},
    {"kind": "sdm", "dictionary": "learned", "atoms": 3},
    {"kind": "vsc", "alpha": 0.2},
    {"kind": "vsc", "sharpness": 5.0, "beta": 0.5, "slab_warmup": [2, 20]},
]
NEAR = 1e-8
"""Autograd takes the derivative of softplus as one above 20, which errs by 2e-9."""


class Pair:
    """An untrained model, its E-step, and some rows, in double precision."""

    def __init__(self, model: Settings, estep: Settings, missing: float = 0.0) -> None:
        torch.manual_seed(0)
        draws = torch.Generator().manual_seed(0)
        config = tiny.config(model=model, estep=estep)
        self.model, self.estep = assemble(config, tiny.DIMS)
        x, chance = torch.rand(2, 9, tiny.DIMS, generator=draws)
        prepare(self.estep, [x], Lanes(9, 1).held(), 0)
        mask = chance >= missing if missing else None
        self.batch = Batch(x.double(), torch.arange(9), mask)
        for part in (self.model, self.estep):
            assert isinstance(part, torch.nn.Module)
            part.double()
        if isinstance(self.model, Scheduled):
            self.model.at(STEP)
        if isinstance(self.model, Projects):
            self.model.project()
        self.named = dict([*self.model.named_parameters(), *self.estep.named_parameters()])
        bias = self.named["head.linear.bias"].data
        bias.copy_(
            10 * torch.randn(bias.shape, generator=draws)
        )  # some log variances out of bounds

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by name, and forget them."""
        found = {name: p.grad for name, p in self.named.items() if p.grad is not None}
        for parameter in self.named.values():
            parameter.grad = None
        return found


def engine_of(pair: Pair) -> EncoderEngine:
    assert isinstance(pair.model, VAE)
    engine = find_encoder_engine(pair.model, pair.estep)
    assert engine is not None
    return engine


@settings(max_examples=40)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(["itakura_saito", "bernoulli"]),
    st.sampled_from(INPUTS),
    st.sampled_from(ACTIVATIONS),
    WIDTHS,
    st.sampled_from([0.0, 0.3]),
)
def test_sums_and_gradients_are_those_of_autograd(
    model: Settings, likelihood: str, inputs: str, activation: str, hidden: list[int], gone: float
) -> None:
    net = {"hidden": hidden, "activation": activation}
    pair = Pair(model | net | {"likelihood": likelihood}, net | {"input": inputs}, gone)
    engine, noise = engine_of(pair), Noise(3, 1, pair.batch.row)
    adam = Adam(list(pair.named.values()), ALONE)  # at a rate of zero
    expected_sums = EagerSteps(pair.model, pair.estep, adam).step(pair.batch, noise, 40)
    expected = pair.gradients()
    found_now = engine.differentiate(pair.batch, noise, 40)
    assert bool(found_now) != engine.model.is_warm, "sums wait while the objective stays the same"
    sums = found_now | engine.sums()
    assert sums.pop("finite") == 1
    assert sums.keys() == expected_sums.keys()
    for name, value in expected_sums.items():
        torch.testing.assert_close(sums[name].double(), value.double(), rtol=1e-9, atol=1e-9)
    found = pair.gradients()
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        scale = float(gradient.abs().max()) + 1e-2 * largest
        assert float((found[name] - gradient).abs().max()) <= NEAR * scale, name


@pytest.mark.parametrize("model", [{"kind": "vae"}, {"kind": "sdm"}, {"kind": "vsc"}], ids=str)
def test_sums_of_many_steps_are_those_of_each(model: Settings) -> None:
    pair = Pair(model, {}, missing=0.3)
    engine, single = engine_of(pair), engine_of(pair)
    total: Sums = {}
    for rows in (slice(0, 4), slice(4, 8), slice(8, 9)):
        batch = pair.batch.part(rows)
        request = (batch, Noise(3, 1, batch.row), 9)
        assert not engine.differentiate(*request)
        add(total, single.differentiate(*request) | single.sums())
    del total["finite"], (found := engine.sums())["finite"]
    assert found.keys() == total.keys()
    for name, value in total.items():
        torch.testing.assert_close(found[name].double(), value)
    assert engine.sums() == {}


def test_the_steps_before_an_objective_that_is_not_finite_are_counted() -> None:
    pair = Pair({"kind": "vae"}, {})
    engine = engine_of(pair)
    for step in range(5):
        if step == 3:
            next(engine.model.decoder.parameters()).data.fill_(torch.inf)
        engine.differentiate(pair.batch, Noise(3, 1, pair.batch.row), 9)
    assert engine.sums()["finite"] == 3


def test_others_are_left_to_autograd() -> None:
    for model in (
        {"kind": "vae", "likelihood": "gaussian"},
        {"kind": "sdm", "dictionary": "learned", "atoms": 3, "coherence": 0.5},
        {"kind": "vsc", "prior": "pseudo"},
        {"kind": "gumbel"},
    ):
        pair = Pair(model, {})
        assert isinstance(pair.model, VAE)
        assert find_encoder_engine(pair.model, pair.estep) is None
