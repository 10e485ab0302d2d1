"""Laws of models with an encoder: objectives over several draws, states drawn from priors, the
pseudo-inputs of variational sparse coding and the warm-up of its slabs.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, distributions

from distvae.config import from_dict
from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.interface import AnyEStep, AnyModel, Batch
from distvae.models.posteriors import LearnedVariance, SpikeAndSlab
from distvae.models.sdm import SDM
from distvae.models.tvae import TVAE
from distvae.models.vae import VAE
from distvae.models.vsc import VSC
from distvae.numerics.noise import Noise
from tests import tiny

DIMS, ROWS = 6, 7
MODELS = (
    {"kind": "vae"},
    {"kind": "sdm", "atoms": 9, "dictionary": "learned"},
    {"kind": "vsc", "alpha": 0.3},
    {"kind": "gumbel", "categories": 3},
)


def assembled(fields: dict[str, Any], draws: int) -> tuple[VAE, Amortised]:
    """A small model with its E-step, the same weights for any number of draws."""
    torch.manual_seed(0)
    model = {"latent": 3, "hidden": [5], "likelihood": "gaussian", "draws": draws, **fields}
    config = from_dict({"model": model, "estep": {"hidden": [5], "input": "raw"}})
    made, estep = assemble(config, DIMS, (DIMS,))
    assert isinstance(made, VAE)
    assert isinstance(estep, Amortised)
    return made, estep


def batch() -> Batch:
    x = torch.randn(ROWS, DIMS, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(ROWS), None)


@pytest.mark.parametrize("fields", MODELS, ids=str)
def test_the_objective_is_the_mean_over_the_draws_minus_the_weighed_divergence(
    fields: dict[str, Any],
) -> None:
    model, estep = assembled({**fields, "beta": 2.0}, 7)
    rows = batch()
    q, noise = estep(model, rows), Noise(0, 0, rows.row)
    z = q.sample(7, noise)
    assert z.shape == (ROWS, 7, model.code_size)
    assert len({tuple(state) for state in z[0].tolist()}) == 7, "all draws differ"
    each = [model.log_likelihood(rows, z[:, [s]])[:, 0] for s in range(7)]
    expected = sum(each) / 7 - 2.0 * q.kl()
    torch.testing.assert_close(model.objective(rows, q, noise), expected)


LATENT, DRAWS = 4, 20_000


def assembled_with(**fields: Any) -> tuple[AnyModel, AnyEStep]:
    torch.manual_seed(0)
    return assemble(tiny.config(model={"latent": LATENT, **fields}), tiny.DIMS)


def drawn(model: AnyModel, estep: AnyEStep) -> Tensor:
    """States (DRAWS, H) of the prior."""
    return model.prior(Noise(0, 0, torch.arange(DRAWS)), estep)[:, 0]


def test_bits_of_a_tvae_are_active_with_probability_pi() -> None:
    torch.manual_seed(0)
    config = tiny.config(model={"kind": "tvae", "latent": LATENT}, estep={"kind": "exact"})
    model, estep = assemble(config, tiny.DIMS)
    assert isinstance(model, TVAE)
    model.pi.copy_(torch.tensor([0.1, 0.3, 0.5, 0.9]))
    torch.testing.assert_close(drawn(model, estep).mean(0), model.pi, atol=0.02, rtol=0)


def test_values_of_a_sparse_code_are_active_with_probability_alpha() -> None:
    z = drawn(*assembled_with(kind="vsc", alpha=0.2))
    assert float((z != 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(z[z != 0].std()) == pytest.approx(1, abs=0.02)


@torch.no_grad()
def test_sparse_codes_of_pseudo_inputs_come_from_all_of_them_alike() -> None:
    model, encoder = assembled_with(kind="vsc", prior="pseudo", pseudo_inputs=3)
    assert isinstance(model, VSC)
    assert isinstance(encoder, Amortised)
    assert model.pseudo is not None
    model.pseudo.points.mul_(5)
    each = encoder.encode(model.pseudo.points)
    assert isinstance(each, SpikeAndSlab)
    assert each.gamma.std(0).max() > 0.2, "pseudo-inputs that differ"
    often = (drawn(model, encoder) != 0).float().mean(0)
    torch.testing.assert_close(often, each.gamma.mean(0), atol=0.02, rtol=0)


def test_coefficients_of_a_dictionary_have_the_mean_variances_of_the_rows() -> None:
    """The variance of a coefficient is mu^2 + sigma^2 in each row. Their mean over rows is
    expected.
    """
    model, estep = assembled_with(kind="sdm")
    assert isinstance(model, SDM)
    mean, log_variance = torch.randn(2, 7, LATENT, generator=torch.Generator().manual_seed(1))
    batch = Batch(torch.rand(7, tiny.DIMS), torch.arange(7))
    q = LearnedVariance(mean, log_variance)
    model.maximise(model.statistics(batch, q, Noise(0, 0, batch.row)))
    expected = (mean.square() + log_variance.exp()).mean(0)
    torch.testing.assert_close(drawn(model, estep).var(0), expected, rtol=0.05, atol=0)


H, ALPHA = 6, 0.2


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
