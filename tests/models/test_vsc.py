"""Laws of variational sparse coding: the targets of its pseudo-inputs, and the warm-up of its
slabs.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, distributions

from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.interface import Batch
from distvae.models.posteriors import SpikeAndSlab
from distvae.models.vsc import VSC
from distvae.numerics.noise import Noise
from tests import tiny

H, ROWS, ALPHA = 6, 7, 0.2


def untrained(**fields: Any) -> tuple[VSC, Amortised]:
    """A model and its encoder, whose spikes are of all probabilities."""
    torch.manual_seed(0)
    section = {"kind": "vsc", "latent": H, "alpha": ALPHA, **fields}
    model, encoder = assemble(tiny.config(model=section), tiny.DIMS)
    assert isinstance(model, VSC)
    assert isinstance(encoder, Amortised)
    with torch.no_grad():
        for parameter in encoder.head.parameters():
            parameter.mul_(3)
    return model, encoder


def posterior(model: VSC, encoder: Amortised) -> SpikeAndSlab:
    x = torch.rand(ROWS, tiny.DIMS, generator=torch.Generator().manual_seed(1))
    q = encoder(model, Batch(x, torch.arange(ROWS)))
    assert isinstance(q, SpikeAndSlab)
    return q


def divergence_of_spikes(p: Tensor, q: Tensor) -> Tensor:
    ours, prior = distributions.Bernoulli(p), distributions.Bernoulli(q)
    divergence: Tensor = distributions.kl_divergence(ours, prior)
    return divergence


def test_the_spikes_of_pseudo_inputs_are_drawn_to_alpha_by_its_divergence_from_their_mean() -> None:
    model, encoder = untrained(prior="pseudo")
    q = posterior(model, encoder)
    mean = q.prior_gamma.mean(-1)
    expected = H * divergence_of_spikes(mean, torch.full_like(mean, ALPHA))
    torch.testing.assert_close(model.penalty(q), expected)


@pytest.mark.parametrize("prior", ["fixed", "pseudo"])
def test_slabs_diverge_from_those_of_the_prior_only_once_they_warm_up(prior: str) -> None:
    model, encoder = untrained(prior=prior, slab_warmup=[4, 8])
    for step, is_cold in ((0, True), (4, True), (5, False)):
        model.at(step)
        q = posterior(model, encoder)
        spikes = divergence_of_spikes(q.gamma, q.prior_gamma).sum(-1)
        assert torch.allclose(q.kl(), spikes, atol=1e-5) == is_cold


def test_slabs_are_half_warm_half_way_through_their_warm_up() -> None:
    """At the share of the mean and of the log variance that they have in the end."""
    model, encoder = untrained(slab_warmup=[4, 8])
    found = []
    for step in (6, 8):
        model.at(step)
        found.append((model.is_warm, posterior(model, encoder)))
    (was_warm, half), (is_warm, whole) = found
    assert (was_warm, is_warm) == (False, True)
    torch.testing.assert_close(half.mean, whole.mean / 2)
    torch.testing.assert_close(half.log_variance, whole.log_variance / 2)


def test_draws_have_exact_zeros_and_codes_have_none() -> None:
    model, encoder = untrained()
    q = posterior(model, encoder)
    noise = Noise(0, 0, torch.arange(ROWS))
    for draws in (q.points(20, noise)[0], model.prior(noise, encoder)):
        assert draws.eq(0).any()
    assert q.code.ne(0).all(), "README says so of `encode` and `transform`"
