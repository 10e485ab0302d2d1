"""The importance-weighted bound against its laws, and against log p(x) where that has a closed
form.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.interface import Batch
from distvae.models.gumbel import Binary
from distvae.models.likelihoods import Gaussian
from distvae.models.posteriors import LearnedVariance
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise
from distvae.numerics.rows import Lanes
from distvae.tasks.measures import weighted
from tests import tiny

ROWS, VARIANCE = 4, 0.5
LINEAR: list[dict[str, Any]] = [
    {"kind": "vae"},
    {"kind": "sdm", "dictionary": "dct", "atoms": 5},
    {"kind": "vsc", "alpha": 0.3},
    {"kind": "gumbel", "alpha": 0.3},
]


class Linear:
    """A model whose decoder is linear and whose noise is Gaussian, so that x given spikes or bits
    is Gaussian too.
    """

    @torch.no_grad()
    def __init__(self, model: dict[str, Any]) -> None:
        config = tiny.config(
            model=model | {"hidden": [], "likelihood": "gaussian"}, estep={"input": "raw"}
        )
        made, estep = assemble(config, tiny.DIMS)
        assert isinstance(made, VAE)
        assert isinstance(estep, Amortised)
        assert isinstance(made.likelihood, Gaussian)
        self.model, self.estep = made, estep
        made.likelihood.variance.fill_(VARIANCE)
        self.x = torch.rand(ROWS, tiny.DIMS, generator=torch.Generator().manual_seed(0))
        if model["kind"] == "vsc":
            bias = estep.get_parameter("head.linear.bias")
            bias[-self.model.code_size :] = -0.7  # gates at a half, where an untrained one is open
        self.estep.prepare([self.x], Lanes(ROWS, 1).held(), 0)

    def repeated(self, times: int) -> tuple[Batch, Any, Noise]:
        """Return every row `times` times, each time with its own draws."""
        row = torch.arange(ROWS * times)
        batch = Batch(self.x.repeat(times, 1), row)
        return batch, self.estep(self.model, batch), Noise(0, 0, row)

    def bounds(self, draws: int, times: int) -> Tensor:
        """Return the bounds (times, ROWS) with this number of draws."""
        batch, q, noise = self.repeated(times)
        return weighted(self.model, batch, q, draws, noise).view(times, ROWS)

    def log_evidence(self) -> Tensor:
        """(ROWS,) log p(x), by the Gaussians that the states of spikes or bits leave."""
        batch, q, _ = self.repeated(1)
        zero = self.model.output(torch.zeros(1, self.model.code_size))
        weights = (self.model.output(torch.eye(self.model.code_size)) - zero).T
        variance = (
            q.prior_log_variance.exp()
            if isinstance(q, LearnedVariance)
            else torch.ones(ROWS, len(weights.T))
        )
        alpha = getattr(self.model.config, "alpha", None)
        found = []
        for bits in (
            itertools.product([0.0, 1.0], repeat=len(weights.T))
            if alpha
            else [(1.0,) * len(weights.T)]
        ):
            active = torch.tensor(bits)
            slabs = variance * active * (not isinstance(q, Binary))
            mean = zero + weights @ active if isinstance(q, Binary) else zero
            covariance = torch.einsum("dh,bh,eh->bde", weights, slabs, weights)
            density = MultivariateNormal(
                mean, covariance + VARIANCE * torch.eye(tiny.DIMS)
            ).log_prob(batch.x)
            chance = (
                (active * alpha + (1 - active) * (1 - alpha)).log().sum()
                if alpha
                else torch.zeros(())
            )
            found.append(density + chance)
        return torch.stack(found).logsumexp(0)


@pytest.fixture(params=LINEAR, ids=str)
def linear(request: pytest.FixtureRequest) -> Linear:
    return Linear(request.param)


@torch.no_grad()
def test_many_draws_near_the_exact_likelihood(linear: Linear) -> None:
    exact = linear.log_evidence().double()
    torch.testing.assert_close(linear.bounds(50_000, 1)[0], exact, atol=0.03, rtol=0)


@torch.no_grad()
def test_more_draws_never_bound_less(linear: Linear) -> None:
    exact = linear.log_evidence().double()
    by_draws = [linear.bounds(draws, 2000) for draws in (1, 2, 5, 20, 100)]
    error = 5 * (2 * max(bounds.var(0).max() for bounds in by_draws) / 2000).sqrt()
    for fewer, more in itertools.pairwise([*(bounds.mean(0) for bounds in by_draws), exact]):
        assert (fewer < more + error).all()
    assert (by_draws[0].mean(0) < by_draws[-1].mean(0)).all()


@torch.no_grad()
def test_one_draw_is_the_bound_on_average(linear: Linear) -> None:
    times = 4000
    batch, q, noise = linear.repeated(times)
    plain = linear.model.bound(batch, q, noise).view(times, ROWS).double()
    one = linear.bounds(1, times)
    error = ((plain.var(0) + one.var(0)) / times).sqrt()
    assert ((plain.mean(0) - one.mean(0)).abs() < 5 * error).all()
