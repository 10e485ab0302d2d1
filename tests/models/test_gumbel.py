"""Laws of binary and categorical latents with an encoder, against torch.distributions and
enumeration.
"""

import math
from dataclasses import replace
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
from tests import dense

Posterior = Binary | Categorical
SEED = st.integers(0, 2**31)
ROWS, LATENT, CATEGORIES, DIMS = 5, 3, 4, 3
SHAPES = {"bits": (LATENT,), "categories": (LATENT, CATEGORIES)}
KIND = st.sampled_from([*SHAPES])
kinds = pytest.mark.parametrize("kind", SHAPES)


def posterior(kind: str, seed: int, temperature: float = 0.5, scale: float = 2.0) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, ROWS, *SHAPES[kind])
    logits, prior = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return (Binary if kind == "bits" else Categorical)(logits, prior, temperature)


def noise(rows: int = ROWS) -> Noise:
    return Noise(0, 0, torch.arange(rows))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, DIMS, dtype=torch.float64, generator=generator).round()
    return Batch(x, torch.arange(ROWS))


def all_states(kind: str) -> Tensor:
    """Return every state, (2^H, H) or (K^H, H K)."""
    if kind == "bits":
        return dense.all_states(LATENT)
    numbers = torch.tensor(list(product(range(CATEGORIES), repeat=LATENT)))
    return functional.one_hot(numbers, CATEGORIES).flatten(1).double()


def log_mass(kind: str, logits: Tensor, z: Tensor) -> Tensor:
    """Return log p of states (N, ...) by torch, (..., N), given logits (..., H) or (..., H, K)."""
    if kind == "bits":
        bits: Tensor = distributions.Bernoulli(logits=logits.unsqueeze(-2)).log_prob(z).sum(-1)
        return bits
    one_hot = distributions.OneHotCategorical(logits=logits.unsqueeze(-3))
    mass: Tensor = one_hot.log_prob(z.unflatten(-1, (LATENT, CATEGORIES))).sum(-1)
    return mass


def model(kind: str = "bits", **fields: Any) -> Gumbel:
    torch.manual_seed(0)
    categories = None if kind == "bits" else CATEGORIES
    config = GumbelModel(
        latent=LATENT, categories=categories, hidden=(6,), likelihood="bernoulli", **fields
    )
    made = Gumbel(config, DIMS).double()
    pi = torch.rand(SHAPES[kind])
    made.pi.copy_(pi if kind == "bits" else pi.softmax(-1).flatten())
    return made


def of_model(made: Gumbel, kind: str) -> Any:
    """Return a posterior with the prior of a model."""
    return made.posterior(lambda u: posterior(kind, 3), torch.zeros(ROWS, 1))


@given(KIND, SEED, st.floats(0.1, 5))
def test_the_divergence_and_the_log_ratio_are_sums_over_all_states(
    kind: str, seed: int, scale: float
) -> None:
    q, z = posterior(kind, seed, scale=scale), all_states(kind)
    ours, prior = log_mass(kind, q.logits, z), log_mass(kind, q.prior_logits, z)
    torch.testing.assert_close(q.kl(), (ours.exp() * (ours - prior)).sum(-1))
    torch.testing.assert_close(q.log_ratio(z.expand(ROWS, -1, -1)), prior - ours)


def test_sure_latents_diverge_from_a_fair_coin_by_a_bit_in_single_precision() -> None:
    logits = torch.tensor([[-90.0], [20.0]], requires_grad=True)
    kl = Binary(logits, torch.zeros(2, 1), 0.5).kl()
    assert kl.tolist() == pytest.approx([math.log(2)] * 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(kl.sum(), logits)
    assert gradient.isfinite().all()


@given(KIND, SEED, st.floats(0.1, 5))
def test_a_relaxed_draw_is_torchs_of_the_same_uniform_noise(
    kind: str, seed: int, temperature: float
) -> None:
    q = posterior(kind, seed, temperature)
    relaxed: Any = distributions.RelaxedBernoulli
    if kind == "categories":
        relaxed = distributions.RelaxedOneHotCategorical
    theirs = relaxed(torch.tensor(temperature).double(), logits=q.logits[:, None])
    uniform = noise().uniform("spike", 1, *SHAPES[kind]).double()
    with patch("torch.rand", return_value=uniform):  # which torch's draws begin with
        expected = theirs.rsample().flatten(2)
    torch.testing.assert_close(q.sample(1, noise()), expected, rtol=1e-5, atol=1e-6)


@kinds
def test_relaxed_draws_become_discrete_draws_with_the_mean_of_the_posterior(kind: str) -> None:
    cold = posterior(kind, 0, temperature=1e-4)
    torch.testing.assert_close(
        cold.sample(1, noise()), cold.points(1, noise())[0], atol=1e-3, rtol=0
    )
    rows, q = 50_000, posterior(kind, 1)
    fields = ("logits", "prior_logits")
    many = replace(q, **{name: getattr(q, name)[:1].expand(rows, *SHAPES[kind]) for name in fields})
    z, weight = many.points(1, noise(rows))
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(weight, torch.ones_like(weight))
    if kind == "categories":
        assert torch.equal(z.unflatten(-1, SHAPES[kind]).sum(-1).unique(), z.new_ones(1))
    torch.testing.assert_close(z[:, 0].mean(0), many.code[0], atol=0.01, rtol=0)


@kinds
def test_the_bound_is_below_the_evidence_by_the_divergence_from_the_true_posterior(
    kind: str,
) -> None:
    """All states are enumerated, and all densities are torch's."""
    made, rows = model(kind), batch()
    q, z = of_model(made, kind), all_states(kind)
    ours = log_mass(kind, q.logits, z)
    states = z.expand(ROWS, -1, -1)
    density = distributions.Bernoulli(logits=made.output(states)).log_prob(rows.x[:, None])
    joint = density.sum(-1) + log_mass(kind, made.prior_logits, z)
    bound = (ours.exp() * (made.log_likelihood(rows, states) + q.log_ratio(states))).sum(-1)
    evidence = joint.logsumexp(1)
    gap = (ours.exp() * (ours - (joint - evidence[:, None]))).sum(-1)
    torch.testing.assert_close(bound, evidence - gap)
    assert (bound <= evidence).all()


@kinds
def test_the_learned_prior_has_the_least_divergence_and_a_fixed_prior_stays(kind: str) -> None:
    fixed, made = model(kind), model(kind, prior="learned")
    before = fixed.pi.clone()
    for each in (fixed, made):
        each.maximise(each.statistics(batch(), of_model(each, kind), noise()))
    assert torch.equal(fixed.pi, before)

    def divergence() -> Tensor:
        return of_model(made, kind).kl().sum()  # type: ignore[no-any-return]

    least, best = divergence(), made.pi.clone()
    for value, factor in product(range(len(best)), (0.97, 1.03)):
        moved = best.clone()
        moved[value] *= factor
        if kind == "categories":
            table = moved.view(SHAPES[kind])
            moved = (table / table.sum(-1, keepdim=True)).flatten()
        made.pi.copy_(moved)
        assert divergence() > least


@pytest.mark.parametrize(("cooling", "expected"), [(4, [4.0, 2.0, 1.0, 0.5]), (0, [0.25] * 4)])
def test_the_temperature_falls_by_the_same_factor_and_then_stays(
    cooling: int, expected: list[float]
) -> None:
    made, found = model(temperature=0.25, hot=4.0, cooling=cooling), []
    for step in (0, 1, 2, 3, 4, 5, math.inf):
        made.at(step)
        found.append(made.temperature)
    assert found == pytest.approx([*expected, 0.25, 0.25, 0.25])


def test_latents_that_were_always_or_never_active_can_become_otherwise() -> None:
    """The learned prior gives neither value a probability of zero."""
    made, q = model(prior="learned"), posterior("bits", 3)
    sums = made.statistics(batch(), q, noise())
    expected = float(q.logits.sigmoid().sum(1).mean())
    assert made.telemetry(sums, ROWS)["active"] == pytest.approx(expected)
    made.maximise(sums | {"active": torch.tensor([0.0, ROWS, 0.5 * ROWS])})
    assert of_model(made, "bits").kl().isfinite().all()


def test_states_of_the_prior_are_drawn_with_its_probabilities() -> None:
    made, rows = model("categories"), 100_000
    no_estep: Any = None
    drawn = made.prior(noise(rows), no_estep)
    assert drawn.shape == (rows, 1, LATENT * CATEGORIES)
    torch.testing.assert_close(drawn[:, 0].mean(0), made.pi, atol=0.01, rtol=0)


def test_a_prior_of_bits_is_refused_beside_categories() -> None:
    with pytest.raises(Refusal, match="alpha is for bits"):
        GumbelModel(categories=3, alpha=0.2)
