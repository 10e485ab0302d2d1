"""Laws of binary latents with an encoder, against torch.distributions and enumeration."""

import math
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributions

from distvae.config import GumbelModel
from distvae.interface import Batch
from distvae.models.gumbel import Binary, Gumbel
from distvae.numerics.noise import Noise
from tests import dense
from tests.models.evidence import States, assert_bound_is_below_evidence

SEED = st.integers(0, 2**31)
ROWS, LATENT, DIMS = 5, 4, 3


def posterior(seed: int, temperature: float = 0.5, scale: float = 2.0) -> Binary:
    generator = torch.Generator().manual_seed(seed)
    logits, prior = scale * torch.randn(2, ROWS, LATENT, generator=generator, dtype=torch.float64)
    return Binary(logits, prior, temperature)


def noise(epoch: int = 0) -> Noise:
    return Noise(0, epoch, torch.arange(ROWS))


@given(SEED, st.floats(0.1, 5))
def test_the_divergence_is_that_of_torch(seed: int, scale: float) -> None:
    q = posterior(seed, scale=scale)
    ours, prior = (
        distributions.Bernoulli(logits=q.logits),
        distributions.Bernoulli(logits=q.prior_logits),
    )
    torch.testing.assert_close(q.kl(), distributions.kl_divergence(ours, prior).sum(-1))


@pytest.mark.parametrize("logit", [-90.0, -20.0, 20.0, 90.0])
def test_sure_latents_diverge_from_a_fair_coin_by_a_bit_in_single_precision(logit: float) -> None:
    logits = torch.tensor([[logit]], requires_grad=True)
    kl = Binary(logits, torch.zeros(1, 1), 0.5).kl().sum()
    assert kl.item() == pytest.approx(math.log(2), rel=1e-5)
    (gradient,) = torch.autograd.grad(kl, logits)
    assert gradient.isfinite().all()


@given(SEED)
def test_the_log_ratio_is_that_of_torch(seed: int) -> None:
    q = posterior(seed)
    z = dense.all_states(LATENT).expand(ROWS, -1, -1)
    ours, prior = (
        distributions.Bernoulli(logits=logits[:, None]) for logits in (q.logits, q.prior_logits)
    )
    torch.testing.assert_close(q.log_ratio(z), (prior.log_prob(z) - ours.log_prob(z)).sum(-1))


@given(SEED, st.floats(0.1, 5))
def test_a_relaxed_draw_is_torchs_of_the_same_uniform_noise(seed: int, temperature: float) -> None:
    q = posterior(seed, temperature)
    theirs = distributions.RelaxedBernoulli(
        torch.tensor(temperature).double(), logits=q.logits[:, None]
    )
    uniform = noise().uniform("spike", 1, LATENT).double()
    with patch("torch.rand", return_value=uniform):  # which torch's draws begin with
        torch.testing.assert_close(q.sample(1, noise()), theirs.rsample(), rtol=1e-5, atol=1e-6)


def test_relaxed_draws_are_distributed_as_torchs() -> None:
    logits = torch.tensor([[1.0, -0.5]]).expand(40_000, 2)
    z = Binary(logits, torch.zeros_like(logits), 0.7).sample(1, Noise(0, 0, torch.arange(40_000)))[
        :, 0
    ]
    torch.manual_seed(0)
    theirs = distributions.RelaxedBernoulli(torch.tensor(0.7), logits=logits).sample()
    levels = torch.linspace(0.05, 0.95, 19)
    for j in range(2):
        torch.testing.assert_close(
            z[:, j].quantile(levels), theirs[:, j].quantile(levels), atol=0.02, rtol=0
        )


def test_relaxed_draws_become_the_binary_ones() -> None:
    q = posterior(0, temperature=1e-4)
    torch.testing.assert_close(q.sample(1, noise()), q.points(1, noise())[0], atol=1e-3, rtol=0)


def test_binary_draws_have_the_mean_of_the_posterior() -> None:
    logits = torch.tensor([[1.0, -0.5]]).expand(100_000, 2)
    z, _ = Binary(logits, torch.zeros_like(logits), 0.5).points(
        1, Noise(0, 0, torch.arange(100_000))
    )
    assert set(z.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(z[:, 0].mean(0), logits[0].sigmoid(), atol=0.01, rtol=0)


def model(seed: int = 0, **fields: Any) -> Gumbel:
    torch.manual_seed(seed)
    made = Gumbel(
        GumbelModel(latent=LATENT, hidden=(6,), likelihood="bernoulli", **fields), DIMS
    ).double()
    made.pi.copy_(torch.rand(LATENT))
    return made


def test_the_bound_is_below_the_evidence_by_the_divergence_from_the_true_posterior() -> None:
    """All 2^H states are enumerated, and all densities are torch's."""
    made = model()
    q: Any = made.posterior(lambda u: posterior(3), torch.zeros(ROWS, 1))
    batch = Batch(torch.rand(ROWS, DIMS, dtype=torch.float64).round(), torch.arange(ROWS))
    z = dense.all_states(LATENT)
    prior = distributions.Bernoulli(made.pi).log_prob(z).sum(-1)
    ours = distributions.Bernoulli(logits=q.logits[:, None]).log_prob(z).sum(-1)
    assert_bound_is_below_evidence(made, batch, q, States(z, prior, ours))


def test_the_learned_prior_has_the_least_divergence() -> None:
    made = model(prior="learned")

    def divergence() -> Tensor:
        q: Any = made.posterior(lambda u: posterior(3), torch.zeros(ROWS, 1))
        return q.kl().sum()  # type: ignore[no-any-return]

    q: Any = made.posterior(lambda u: posterior(3), torch.zeros(ROWS, 1))
    batch = Batch(torch.rand(ROWS, DIMS, dtype=torch.float64), torch.arange(ROWS))
    made.maximise(made.statistics(batch, q, noise()))
    least, best = divergence(), made.pi.clone()
    for h in range(LATENT):
        for step in (-0.02, 0.02):
            made.pi.copy_(best)
            made.pi[h] = (best[h] + step).clamp(1e-6, 1 - 1e-6)
            assert divergence() > least


def test_a_fixed_prior_stays() -> None:
    made = model()
    before = made.pi.clone()
    q: Any = made.posterior(lambda u: posterior(3), torch.zeros(ROWS, 1))
    made.maximise(
        made.statistics(Batch(torch.rand(ROWS, DIMS).double(), torch.arange(ROWS)), q, noise())
    )
    assert torch.equal(made.pi, before)


def test_the_temperature_falls_by_the_same_factor_and_then_stays() -> None:
    made = model(temperature=0.25, hot=4.0, cooling=4)
    found = []
    for step in (0, 1, 2, 3, 4, 5, math.inf):
        made.at(step)
        found.append(made.temperature)
    assert found == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25, 0.25, 0.25])


def test_without_cooling_the_temperature_is_constant() -> None:
    made = model(temperature=0.25, hot=4.0)
    made.at(0)
    assert made.temperature == 0.25


def test_latents_that_were_always_or_never_active_can_become_otherwise() -> None:
    """The learned prior gives neither value a probability of zero."""
    made = model(prior="learned")
    rows = torch.tensor(10.0, dtype=torch.float64)
    made.maximise({"active": torch.tensor([0.0, 10.0, 5.0, 5.0]), "rows": rows})
    q: Any = made.posterior(lambda u: posterior(3), torch.zeros(ROWS, 1))
    assert q.kl().isfinite().all()


def test_the_reported_activity_is_that_of_a_row() -> None:
    made, q = model(), posterior(3)
    batch = Batch(torch.rand(ROWS, DIMS).double(), torch.arange(ROWS))
    found = made.telemetry(made.statistics(batch, q, noise()), ROWS)["active"]
    assert found == pytest.approx(float(q.logits.sigmoid().sum(1).mean()))
