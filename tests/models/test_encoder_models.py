"""Laws of models with an encoder: objectives over several draws, states drawn from priors, the
pseudo-inputs of variational sparse coding and the warm-up of its slabs.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, distributions

from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.interface import AnyEStep, AnyModel, Batch
from distvae.models.posteriors import Gaussian, LearnedVariance, SpikeAndSlab, active_code
from distvae.models.tvae import TVAE
from distvae.numerics.noise import Noise
from tests import tiny

ROWS = 7
MODELS = (
    {"kind": "vae"},
    {"kind": "sdm", "atoms": 9, "dictionary": "learned"},
    {"kind": "vsc", "alpha": 0.3},
    {"kind": "gumbel", "categories": 3},
)


Made = tuple[Any, Amortised]


def assembled(inputs: str = "log", **model: Any) -> Made:
    torch.manual_seed(0)
    made, estep = assemble(tiny.config(model=model, estep={"input": inputs}), tiny.DIMS)
    assert isinstance(estep, Amortised)
    return made, estep


def batch() -> Batch:
    x = torch.rand(ROWS, tiny.DIMS, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(ROWS))


@pytest.mark.parametrize("fields", MODELS, ids=str)
def test_the_objective_is_the_mean_over_the_draws_minus_the_weighed_divergence(
    fields: dict[str, Any],
) -> None:
    model, estep = assembled(likelihood="gaussian", beta=2.0, draws=7, **fields)
    rows = batch()
    q, noise = estep(model, rows), Noise(0, 0, rows.row)
    z = q.sample(7, noise)
    assert z.shape == (ROWS, 7, model.code_size)
    assert len({tuple(state) for state in z[0].tolist()}) == 7, "all draws differ"
    each = [model.log_likelihood(rows, z[:, [s]])[:, 0] for s in range(7)]
    expected = sum(each) / 7 - 2.0 * q.kl()
    torch.testing.assert_close(model.objective(rows, q, noise), expected)


LATENT, DRAWS = 4, 20_000


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
    z = drawn(*assembled(kind="vsc", alpha=0.2))
    assert float((z != 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(z[z != 0].std()) == pytest.approx(1, abs=0.02)


@torch.no_grad()
def test_sparse_codes_of_pseudo_inputs_come_from_all_of_them_alike() -> None:
    model, encoder = assembled(kind="vsc", prior="pseudo", pseudo_inputs=3)
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
    model, estep = assembled(kind="sdm")
    mean, log_variance = torch.randn(2, 7, LATENT, generator=torch.Generator().manual_seed(1))
    q = LearnedVariance(mean, log_variance)
    model.maximise(model.statistics(batch(), q, Noise(0, 0, batch().row)))
    expected = (mean.square() + log_variance.exp()).mean(0)
    torch.testing.assert_close(drawn(model, estep).var(0), expected, rtol=0.05, atol=0)


ALPHA = 0.2


def sparse(**fields: Any) -> Made:
    """A VSC and its encoder, whose spikes are of all probabilities."""
    model, encoder = assembled(kind="vsc", alpha=ALPHA, **fields)
    with torch.no_grad():
        for parameter in encoder.head.parameters():
            parameter.mul_(3)
    return model, encoder


def divergence_of_spikes(p: Tensor, q: Tensor) -> Tensor:
    ours, prior = distributions.Bernoulli(p), distributions.Bernoulli(q)
    divergence: Tensor = distributions.kl_divergence(ours, prior)
    return divergence


def test_the_spikes_of_pseudo_inputs_are_drawn_to_alpha_by_its_divergence_from_their_mean() -> None:
    model, encoder = sparse(prior="pseudo")
    q: Any = encoder(model, batch())
    mean = q.prior_gamma.mean(-1)
    expected = LATENT * divergence_of_spikes(mean, torch.full_like(mean, ALPHA))
    torch.testing.assert_close(model.penalty(q), expected)


@pytest.mark.parametrize("prior", ["fixed", "pseudo"])
def test_slabs_warm_up_from_the_slabs_of_the_prior(prior: str) -> None:
    """Half way through, mean and log variance have half of their values in the end."""
    model, encoder = sparse(prior=prior, slab_warmup=[4, 8])
    found: dict[int, Any] = {}
    for step, is_cold in ((0, True), (4, True), (5, False), (6, False), (8, False)):
        model.at(step)
        q = found[step] = encoder(model, batch())
        spikes = divergence_of_spikes(found[step].gamma, found[step].prior_gamma).sum(-1)
        assert torch.allclose(q.kl(), spikes, atol=1e-5) == is_cold
        assert model.is_warm == (step == 8)
    torch.testing.assert_close(found[6].mean, found[8].mean / 2)
    torch.testing.assert_close(found[6].log_variance, found[8].log_variance / 2)


def test_draws_have_exact_zeros_and_codes_have_none() -> None:
    model, encoder = sparse()
    q, noise = encoder(model, batch()), Noise(0, 0, torch.arange(ROWS))
    for draws in (q.points(20, noise)[0], model.prior(noise, encoder)):
        assert draws.eq(0).any()
    assert q.code.ne(0).all(), "README says so of `encode` and `transform`"


@pytest.mark.parametrize("kind", [Gaussian, LearnedVariance])
def test_active_values_of_gaussians_tell_half_a_nat(kind: type[Gaussian]) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 50, LATENT, generator=generator)
    q = kind(mean, log_variance)
    own = distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = distributions.Normal(0.0, (0.5 * q.prior_log_variance).exp())
    nats = distributions.kl_divergence(own, prior)
    torch.testing.assert_close(q.nats(), nats)
    assert 0 < nats.gt(0.5).double().mean() < 1
    torch.testing.assert_close(active_code(q), mean * nats.gt(0.5))


def test_active_values_are_those_of_the_most_probable_state() -> None:
    model, encoder = sparse()
    q: Any = encoder(model, batch())
    assert torch.equal(active_code(q), q.mean * (q.gamma > 1 - q.gamma))
    cases: list[dict[str, Any]] = [{}, {"categories": 3}]
    for fields in cases:
        bits, encoder = assembled(likelihood="gaussian", kind="gumbel", **fields)
        q = encoder(bits, batch())
        draws = q.points(4000, Noise(0, 0, torch.arange(ROWS)))[0]
        often = draws.mean(1).reshape(ROWS, -1, fields.get("categories", 1))
        likeliest = often == often.amax(2, keepdim=True) if fields else often > 0.5
        sure = (often.sort(2).values[:, :, -2:].diff(dim=2) if fields else often - 0.5).abs() > 0.05
        found = active_code(q).reshape(often.shape)
        assert torch.equal(found.bool() & sure, likeliest & sure)
        assert sure.double().mean() > 0.3
