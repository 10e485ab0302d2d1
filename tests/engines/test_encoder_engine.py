"""Gradients by hand against autograd, for every model, likelihood and shape that they serve."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distvae.config import VAEModel
from distvae.engines import choose_engine
from distvae.engines.dense_layers import Buffer
from distvae.engines.encoder_latents import fill_normal, fill_uniform
from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.interface import AnyEStep, Batch, Engine, Projects, Scheduled, Sums, prepare
from distvae.models.vae import VAE
from distvae.numerics.lanes import Lanes
from distvae.numerics.noise import Noise
from distvae.train.adam import Adam
from distvae.train.session import build_trainer
from distvae.train.step import Ascent
from distvae.train.team import ALONE
from tests import tiny
from tests.models.test_kernels import without_numba

Settings = dict[str, Any]
MODELS: list[Settings] = [
    {"kind": "vae"},
    {"kind": "vae", "beta": 3.0, "beta_warmup": 20},
    {"kind": "sdm"},
    {"kind": "sdm", "dictionary": "dct", "atoms": 7},
    {"kind": "sdm", "dictionary": "learned", "atoms": 3, "coherence": 0.5},
    {"kind": "vsc", "alpha": 0.2},
    {"kind": "vsc", "sharpness": 5.0, "beta": 0.5, "slab_warmup": [2, 20]},
]
LIKELIHOODS = ["itakura_saito", "bernoulli", "gaussian"]
INPUTS = ["raw", "standard", "log", "log_standard"]
ACTIVATIONS = ["tanh", "relu", "leaky_relu"]
WIDTHS = st.lists(st.integers(1, 20), max_size=2)
STEP = 10.0
"""Within the warm-ups."""


class Pair:
    """An untrained model, its E-step, and some rows."""

    def __init__(
        self, model: Settings, estep: Settings, rows: int = 9, missing: float = 0.0, seed: int = 0
    ) -> None:
        self.seed = seed
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        config = tiny.config(model=model, estep=estep)
        self.model, self.estep = assemble(config, tiny.DIMS)
        x, chance = torch.rand(2, rows, tiny.DIMS, generator=generator)
        mask = chance >= missing if missing else None
        self.batch = Batch(x, torch.arange(rows), mask)
        prepare(self.estep, [x], Lanes(rows, 1).held(), 0)
        for name, buffer in dict(self.model.state_dict()).items():
            if name == "likelihood.variance":
                buffer.fill_(0.3)
        self._scatter(0.3)

    def _scatter(self, size: float) -> None:
        """Let the biases of the encoder's head be anything."""
        generator = torch.Generator().manual_seed(self.seed)
        for name, parameter in self.estep.named_parameters():
            if name == "head.linear.bias":
                parameter.data.copy_(size * torch.randn(parameter.shape, generator=generator))

    def double(self) -> "Pair":
        """Compute in double precision, with some log variances out of bounds, from now on."""
        self._scatter(10.0)
        for part in (self.model, self.estep):
            assert isinstance(part, torch.nn.Module)
            part.double()
        self.batch = self.batch._replace(x=self.batch.x.double())
        return self

    def gradients(self, kind: str, rows: int = 40) -> tuple[Sums, dict[str, Tensor]]:
        """Return the sums and the gradients by name, of the mean over so many rows."""
        if isinstance(self.model, Scheduled):
            self.model.at(STEP)
        if isinstance(self.model, Projects):
            self.model.project()
        engine = choose_engine(kind, self.model, self.estep)
        assert (engine is None) == (kind == "autograd")
        named = [*self.model.named_parameters(), *self.estep.named_parameters()]
        adam = Adam([parameter for _, parameter in named], ALONE)  # at a rate of zero
        noise = Noise(3, 1, self.batch.row)
        sums = Ascent(self.model, self.estep, adam, engine).step(self.batch, noise, rows)
        found = {}
        for name, parameter in named:
            if parameter.grad is not None:
                found[name] = parameter.grad.clone()
        return sums, found


def assert_equal(pair: Pair, relative: float) -> None:
    """Compare sums, and gradients by the norm of their difference."""
    (sums, gradients), (expected, others) = (pair.gradients(k) for k in ("auto", "autograd"))
    assert sums.keys() == expected.keys()
    for name, value in expected.items():
        size = float(value.double().norm())
        torch.testing.assert_close(
            sums[name].double(), value.double(), rtol=relative, atol=relative * size, msg=name
        )
    assert gradients.keys() == others.keys()
    whole = math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in others.values()))
    for name, gradient in others.items():
        error = float((gradients[name] - gradient).norm())
        assert error <= relative * (float(gradient.norm()) + 1e-2 * whole), name


@settings(max_examples=100)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(LIKELIHOODS),
    st.sampled_from(INPUTS),
    st.tuples(st.sampled_from(ACTIVATIONS), WIDTHS),
    st.tuples(st.sampled_from(ACTIVATIONS), WIDTHS),
    st.integers(1, 33),
    st.sampled_from([0.0, 0.4]),
    st.integers(0, 1000),
)
def test_in_double_precision_gradients_and_sums_are_those_of_autograd(
    model: Settings,
    likelihood: str,
    kind: str,
    encoder: tuple[str, list[int]],
    decoder: tuple[str, list[int]],
    rows: int,
    missing: float,
    seed: int,
) -> None:
    model = model | {
        "likelihood": likelihood,
        "activation": decoder[0],
        "hidden": decoder[1],
    }
    estep = {"input": kind, "activation": encoder[0], "hidden": encoder[1]}
    # torch's softplus is linear beyond 20, which is off by 2e-9
    relative = 1e-8 if likelihood == "bernoulli" else 1e-10
    assert_equal(Pair(model, estep, rows, missing, seed).double(), relative)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_in_single_precision_they_are_so_up_to_rounding(
    model: Settings, likelihood: str, missing: float
) -> None:
    pair = Pair(model | {"likelihood": likelihood, "hidden": [30]}, {}, 50, missing)
    assert_equal(pair, 1e-5)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_training_ends_at_the_same_parameters(model: Settings) -> None:
    trained = []
    for kind in ("auto", "autograd"):
        config = tiny.config(model=model, train={"gradients": kind, "epochs": 3, "rate": 1e-3})
        trainer = build_trainer(config, tiny.dataset())
        records = list(trainer.run())
        trained.append((trainer.state()[0], records[-1].train_objective))
    (state, objective), (expected, other) = trained
    assert objective == pytest.approx(other, rel=1e-5)
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4, msg=name)


@given(st.integers(0, 2**40), st.integers(1, 40), st.integers(1, 70))
def test_draws_are_those_of_the_noise(first: int, rows: int, latent: int) -> None:
    noise = Noise(first, 5, torch.arange(first, first + rows))
    uniform = fill_uniform(Buffer(rows, latent, torch.float32), noise)
    np.testing.assert_array_equal(uniform, noise.uniform("spike", latent).numpy())
    normal = fill_normal(Buffer(rows, latent, torch.float32), noise)
    expected = noise.normal("slab", latent).numpy()
    np.testing.assert_allclose(normal, expected, rtol=1e-6, atol=1e-6)


def test_batches_of_several_sizes_have_buffers_of_their_own() -> None:
    pair = Pair({"kind": "vae"}, {})
    engine = choose_engine("auto", pair.model, pair.estep)
    assert engine is not None
    whole = pair.batch
    for count in (9, 4, 1, 7, 2, 9, 4):
        batch = Batch(whole.x[:count], whole.row[:count])
        noise = Noise(3, 1, batch.row)
        sums = engine.differentiate(batch, noise, 9)
        with torch.no_grad():
            q = pair.estep(pair.model, batch)
            expected = pair.model.objective(batch, q, noise).sum()
        assert float(sums["objective"]) == pytest.approx(float(expected), rel=1e-5)


def test_parameters_that_do_not_learn_have_no_gradient() -> None:
    pair = Pair({"kind": "sdm", "dictionary": "dct", "atoms": 7}, {})
    frozen = dict(pair.estep.named_parameters())["head.linear.bias"]
    frozen.requires_grad_(False)
    _, found = pair.gradients("auto")
    assert "dictionary" not in found
    assert "head.linear.bias" not in found
    assert "head.linear.weight" in found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("place", ["decoder.2.bias", "head.linear.bias", "trunk.0.bias"])
def test_an_objective_that_is_not_finite_is_so_both_ways(
    likelihood: str, place: str, value: float
) -> None:
    pair = Pair({"kind": "vae", "likelihood": likelihood, "activation": "relu"}, {})
    named = {**dict(pair.model.named_parameters()), **dict(pair.estep.named_parameters())}
    with torch.no_grad():
        named[place].fill_(value)
    finite = [bool(pair.gradients(k)[0]["objective"].isfinite()) for k in ("auto", "autograd")]
    assert finite[0] <= finite[1]


class Derived(VAE):
    """A model of someone else, whose objective may be another."""


OTHERS: list[tuple[Settings, Settings]] = [
    ({"kind": "gumbel"}, {}),
    ({"kind": "vsc", "prior": "pseudo"}, {}),
]


@pytest.mark.parametrize(("model", "estep"), OTHERS)
def test_other_models_are_left_to_autograd(model: Settings, estep: Settings) -> None:
    pair = Pair(model, estep)
    assert choose_engine("auto", pair.model, pair.estep) is None


def test_convolutions_are_left_to_autograd() -> None:
    conv = {"net": "conv", "channels": [3, 2], "kernel": 3}
    both = assemble(tiny.config(model=conv, estep=conv), tiny.DIMS, tiny.SHAPE)
    dense = assemble(tiny.config(), tiny.DIMS)
    for model, estep in (both, (both[0], dense[1]), (dense[0], both[1])):
        assert choose_engine("auto", model, estep) is None
    assert choose_engine("auto", *dense) is not None


def test_derived_models_are_left_to_autograd() -> None:
    model = Derived(VAEModel(latent=4, hidden=(8,)), tiny.DIMS)
    estep = Amortised(tiny.config().estep, model)  # type: ignore[arg-type]
    assert choose_engine("auto", model, estep) is None


class Still:
    """An engine of someone else, whose gradients are zero."""

    def __init__(self, model: VAE) -> None:
        self.model = model

    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return {"objective": torch.zeros(())}


class WithEngine(VAE):
    """A model of someone else, which brings its engine."""

    def engine(self, estep: AnyEStep) -> Engine:
        return Still(self)


def test_a_model_that_brings_an_engine_is_trained_with_it() -> None:
    model = WithEngine(VAEModel(latent=4, hidden=(8,)), tiny.DIMS)
    estep: AnyEStep = Amortised(tiny.config().estep, model)  # type: ignore[arg-type]
    assert choose_engine("autograd", model, estep) is None
    engine = choose_engine("auto", model, estep)
    before = [parameter.clone() for parameter in model.parameters()]
    adam = Adam(list(model.parameters()), ALONE)
    adam.rate = 0.1
    batch = Batch(torch.rand(6, tiny.DIMS), torch.arange(6))
    Ascent(model, estep, adam, engine).step(batch, Noise(3, 1, batch.row), 6)
    assert all(map(torch.equal, before, model.parameters()))


def test_without_numba_autograd_serves() -> None:
    pair = Pair({"kind": "vae"}, {})
    assert choose_engine("auto", pair.model, pair.estep) is not None
    with without_numba():
        assert choose_engine("auto", pair.model, pair.estep) is None
