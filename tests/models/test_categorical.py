"""Laws of categorical latents, against torch.distributions and enumeration."""

from itertools import product
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributions
from torch.nn import functional

from distvae.config import GumbelModel
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.gumbel import Binary, Categorical, Gumbel
from distvae.numerics.noise import Noise
from tests.laws.model_laws import Case
from tests.models.evidence import States, assert_bound_is_below_evidence

SEED = st.integers(0, 2**31)
ROWS, LATENT, CATEGORIES, DIMS = 5, 3, 4, 3


def posterior(seed: int, temperature: float = 0.5, scale: float = 2.0) -> Categorical:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, ROWS, LATENT, CATEGORIES)
    logits, prior = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return Categorical(logits, prior, temperature)


def noise(epoch: int = 0) -> Noise:
    return Noise(0, epoch, torch.arange(ROWS))


def all_states() -> Tensor:
    """Return every state, (K^H, H K)."""
    numbers = torch.tensor(list(product(range(CATEGORIES), repeat=LATENT)))
    return functional.one_hot(numbers, CATEGORIES).flatten(1).double()


def log_mass(logits: Tensor, z: Tensor) -> Tensor:
    """Return log p of states (N, H K) under logits (..., H, K) by torch, (..., N)."""
    one_hot = distributions.OneHotCategorical(logits=logits.unsqueeze(-3))
    mass: Tensor = one_hot.log_prob(z.unflatten(-1, (LATENT, CATEGORIES))).sum(-1)
    return mass


@given(SEED, st.floats(0.1, 5))
def test_the_divergence_is_the_sum_over_all_states(seed: int, scale: float) -> None:
    q, z = posterior(seed, scale=scale), all_states()
    ours, prior = log_mass(q.logits, z), log_mass(q.prior_logits, z)
    torch.testing.assert_close(q.kl(), (ours.exp() * (ours - prior)).sum(-1))


@given(SEED)
def test_the_log_ratio_is_that_of_torch(seed: int) -> None:
    q, z = posterior(seed), all_states()
    expected = log_mass(q.prior_logits, z) - log_mass(q.logits, z)
    torch.testing.assert_close(q.log_ratio(z.expand(ROWS, -1, -1)), expected)


@given(SEED, st.floats(0.1, 5))
def test_a_relaxed_draw_is_torchs_of_the_same_uniform_noise(seed: int, temperature: float) -> None:
    q = posterior(seed, temperature)
    theirs = distributions.RelaxedOneHotCategorical(
        torch.tensor(temperature).double(), logits=q.logits[:, None]
    )
    uniform = noise().uniform("spike", 1, LATENT * CATEGORIES).double()
    with patch("torch.rand", return_value=uniform.unflatten(-1, (LATENT, CATEGORIES))):
        expected = theirs.rsample().flatten(2)
    torch.testing.assert_close(q.sample(1, noise()), expected, rtol=1e-5, atol=1e-6)


@given(SEED)
@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(seed: int) -> None:
    q = posterior(seed)

    def sample_and_divergence(logits: Tensor) -> tuple[Tensor, Tensor]:
        moved = Categorical(logits, q.prior_logits, q.temperature)
        return moved.sample(1, noise()), moved.kl()

    logits = q.logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(sample_and_divergence, (logits,))


def test_relaxed_draws_become_the_unit_vectors() -> None:
    q = posterior(0, temperature=1e-4)
    torch.testing.assert_close(q.sample(1, noise()), q.points(1, noise())[0], atol=1e-3, rtol=0)


def test_draws_are_unit_vectors_with_the_mean_of_the_posterior() -> None:
    rows = 100_000
    logits = torch.tensor([[[1.0, -0.5, 0.0], [2.0, 2.0, -3.0]]]).expand(rows, 2, 3)
    q = Categorical(logits, torch.zeros_like(logits), 0.5)
    z, weight = q.points(1, Noise(0, 0, torch.arange(rows)))
    assert torch.equal(z.unflatten(-1, (2, 3)).sum(-1), torch.ones(rows, 1, 2))
    assert torch.equal(weight, torch.ones(rows, 1))
    torch.testing.assert_close(z[:, 0].mean(0), logits[0].softmax(-1).flatten(), atol=0.01, rtol=0)


@given(SEED)
def test_two_categories_are_a_bit_whose_logit_is_their_difference(seed: int) -> None:
    q = posterior(seed)
    pairs = Categorical(q.logits[..., :2], q.prior_logits[..., :2], 0.5)
    bits = Binary(
        q.logits[..., 1] - q.logits[..., 0], q.prior_logits[..., 1] - q.prior_logits[..., 0], 0.5
    )
    torch.testing.assert_close(pairs.kl(), bits.kl())
    torch.testing.assert_close(pairs.code[:, 1::2], bits.code)


def model(seed: int = 0, **fields: Any) -> Gumbel:
    torch.manual_seed(seed)
    config = GumbelModel(
        latent=LATENT, categories=CATEGORIES, hidden=(6,), likelihood="bernoulli", **fields
    )
    made = Gumbel(config, DIMS).double()
    made.pi.copy_(torch.rand(LATENT, CATEGORIES).softmax(-1).flatten())
    return made


def test_the_bound_is_below_the_evidence_by_the_divergence_from_the_true_posterior() -> None:
    """All K^H states are enumerated, and all densities are torch's."""
    made = model()
    q: Any = made.posterior(lambda u: posterior(3), torch.zeros(ROWS, 1))
    batch = Batch(torch.rand(ROWS, DIMS, dtype=torch.float64).round(), torch.arange(ROWS))
    z = all_states()
    prior = made.pi.unflatten(-1, (LATENT, CATEGORIES)).log()
    states = States(z, log_mass(prior, z), log_mass(q.logits, z))
    assert_bound_is_below_evidence(made, batch, q, states)


def test_the_learned_prior_has_the_least_divergence() -> None:
    """Its probabilities are the mean posterior probabilities over rows, for each latent."""
    made = model(prior="learned")
    q: Any = made.posterior(lambda u: posterior(3), torch.zeros(ROWS, 1))
    batch = Batch(torch.rand(ROWS, DIMS, dtype=torch.float64), torch.arange(ROWS))
    made.maximise(made.statistics(batch, q, noise()))

    def divergence(pi: Tensor) -> Tensor:
        return Categorical(q.logits, pi.log().expand_as(q.logits), 0.5).kl().sum()

    best = made.pi.unflatten(-1, (LATENT, CATEGORIES))
    torch.testing.assert_close(best.sum(-1), torch.ones(LATENT).double())
    for latent, category in product(range(LATENT), range(CATEGORIES)):
        for factor in (0.9, 1.1):
            moved = best.clone()
            moved[latent, category] *= factor
            assert divergence(moved / moved.sum(-1, keepdim=True)) > divergence(best)


def test_states_of_the_prior_are_drawn_with_its_probabilities() -> None:
    made, rows = model(), 100_000
    case = Case.of({"model": {"kind": "gumbel", "latent": 2, "categories": 3}})
    drawn = made.prior(Noise(0, 0, torch.arange(rows)), case.estep)
    assert drawn.shape == (rows, 1, LATENT * CATEGORIES)
    torch.testing.assert_close(drawn[:, 0].mean(0), made.pi, atol=0.01, rtol=0)


def test_a_prior_of_bits_is_refused_beside_categories() -> None:
    with pytest.raises(Refusal, match="alpha is for bits"):
        GumbelModel(categories=3, alpha=0.2)
