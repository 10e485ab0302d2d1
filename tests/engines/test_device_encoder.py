"""Gradients by hand in operations of torch against autograd, for every model that they serve."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.engines.device_encoder import DeviceEncoderEngine, find_device_encoder_engine
from distvae.interface import Sums
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise
from distvae.train.step import add
from tests.engines.test_encoder_engine import ACTIVATIONS, INPUTS, WIDTHS, Pair, Settings

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


def engine_of(pair: Pair) -> DeviceEncoderEngine:
    assert isinstance(pair.model, VAE)
    engine = find_device_encoder_engine(pair.model, pair.estep)
    assert engine is not None
    return engine


@settings(max_examples=100)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(["itakura_saito", "bernoulli"]),
    st.sampled_from(INPUTS),
    st.sampled_from([*ACTIVATIONS, "silu"]),
    WIDTHS,
    st.sampled_from([0.0, 0.3]),
)
def test_sums_and_gradients_are_those_of_autograd(
    model: Settings, likelihood: str, inputs: str, activation: str, hidden: list[int], gone: float
) -> None:
    net = {"hidden": hidden, "activation": activation}
    whole = model | net | {"likelihood": likelihood}
    pair = Pair(whole, net | {"input": inputs}, missing=gone).double()
    expected_sums, expected = pair.gradients("autograd")
    assert isinstance(pair.model, VAE)
    engine = engine_of(pair)
    named = [*pair.model.named_parameters(), *pair.estep.named_parameters()]
    for _, parameter in named:
        parameter.grad = None
    found_now = engine.differentiate(pair.batch, Noise(3, 1, pair.batch.row), 40)
    assert bool(found_now) != pair.model.is_warm, "sums wait while the objective stays the same"
    sums = found_now | engine.sums()
    assert sums.pop("finite") == 1
    assert sums.keys() == expected_sums.keys()
    for name, value in expected_sums.items():
        torch.testing.assert_close(sums[name].double(), value.double(), rtol=1e-9, atol=1e-9)
    found = {name: p.grad for name, p in named if p.grad is not None}
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        scale = float(gradient.abs().max()) + 1e-2 * largest
        assert float((found[name] - gradient).abs().max()) <= NEAR * scale, name


@pytest.mark.parametrize("model", [{"kind": "vae"}, {"kind": "sdm"}, {"kind": "vsc"}], ids=str)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_sums_of_many_steps_are_those_of_each(model: Settings, missing: float) -> None:
    pair = Pair(model, {}, missing=missing).double()
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


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "vae", "likelihood": "gaussian"},
        {"kind": "sdm", "dictionary": "learned", "atoms": 3, "coherence": 0.5},
        {"kind": "vsc", "prior": "pseudo"},
        {"kind": "gumbel"},
    ],
)
def test_others_are_left_to_autograd(model: Settings) -> None:
    pair = Pair(model, {})
    assert isinstance(pair.model, VAE)
    assert find_device_encoder_engine(pair.model, pair.estep) is None
