"""Laws of likelihoods, posteriors and models, against torch.distributions, quadrature, autograd and
SciPy.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributions

from distvae.config import SDMModel, VAEModel
from distvae.engines.encoder import PULLS
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models import likelihoods
from distvae.models.likelihoods import (
    LEAST_VARIANCE,
    Bernoulli,
    Gaussian,
    GaussianLearned,
    ItakuraSaito,
    Likelihood,
    mean_variance,
)
from distvae.models.posteriors import Gaussian as GaussianPosterior
from distvae.models.posteriors import LearnedVariance, SpikeAndSlab
from distvae.models.sdm import SDM, coherence, dct
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise

SEED = st.integers(0, 2**31)


def moments(seed: int, rows: int = 4, latent: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, rows, latent, generator=generator, dtype=torch.float64)
    return first, second


def spike_and_slab(seed: int, alpha: float = 0.3) -> SpikeAndSlab:
    mean, log_variance = moments(seed)
    gamma = torch.sigmoid(moments(seed + 1)[0])
    prior_gamma, prior = torch.full_like(mean, alpha), moments(seed + 2)
    return SpikeAndSlab(gamma, mean, log_variance, 200.0, prior_gamma, *prior)


@given(SEED)
def test_gaussian_divergences_are_those_of_torch_and_of_the_alternating_scheme(seed: int) -> None:
    mean, log_variance = inputs = [t.requires_grad_() for t in moments(seed)]
    q = distributions.Normal(mean, (0.5 * log_variance).exp())
    p = distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = distributions.kl_divergence(q, p).sum(-1)
    torch.testing.assert_close(GaussianPosterior(mean, log_variance).kl(), expected)
    ours = LearnedVariance(mean, log_variance).kl().sum()
    gamma = (mean.square() + log_variance.exp()).detach()
    learned = distributions.Normal(torch.zeros_like(mean), gamma.sqrt())
    theirs = distributions.kl_divergence(q, learned).sum()
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(each, inputs, retain_graph=True) for each in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("mean", "log_variance"), [(0.0, 0.0), (0.0, -20.0), (20.0, -20.0), (1e-30, 10.0)]
)
def test_the_learned_variance_divergence_stays_finite_in_single_precision(
    mean: float, log_variance: float
) -> None:
    inputs = [torch.tensor([[value]], requires_grad=True) for value in (mean, log_variance)]
    kl = LearnedVariance(*inputs).kl().sum()
    exact = 0.5 * math.log1p(mean**2 * math.exp(-log_variance))
    assert kl.item() == pytest.approx(exact, rel=1e-5, abs=1e-6)
    assert all(g.isfinite().all() for g in torch.autograd.grad(kl, inputs))


@given(SEED, st.floats(0.01, 0.99))
def test_the_spike_and_slab_divergence_is_minus_the_expected_log_ratio(
    seed: int, alpha: float
) -> None:
    """E_q[log p - log q] by quadrature over the slab and enumeration of the spike, one value at a
    time.
    """
    q = spike_and_slab(seed, alpha)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    node, weight = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    scale = (0.5 * q.log_variance).exp()
    expected = torch.zeros(len(q.mean), dtype=torch.float64)
    parts = (q.gamma, q.mean, q.log_variance, q.prior_gamma, q.prior_mean, q.prior_log_variance)
    for j in range(q.mean.shape[1]):
        gamma, mean, log_variance, *prior = (t[:, j : j + 1] for t in parts)
        one = SpikeAndSlab(gamma, mean, log_variance, q.sharpness, *prior)
        on = (one.log_ratio((mean + scale[:, j : j + 1] * node)[:, :, None]) * weight).sum(1)
        off = one.log_ratio(torch.zeros(len(mean), 1, 1, dtype=torch.float64))[:, 0]
        expected -= gamma[:, 0] * on + (1 - gamma[:, 0]) * off
    torch.testing.assert_close(q.kl(), expected)


@given(SEED)
def test_densities_are_those_of_torch(seed: int) -> None:
    """p(c) of a circular complex Gaussian, as two real Gaussians of half its variance, is p(|c|^2)
    / pi.
    """
    (x, imaginary), (output, log_variance) = moments(seed), moments(seed + 1)
    half = distributions.Normal(torch.zeros_like(output), (0.5 * output.exp()).sqrt())
    expected = half.log_prob(x) + half.log_prob(imaginary) + math.log(math.pi)
    power = x.square() + imaginary.square()
    torch.testing.assert_close(ItakuraSaito().log_density(power, output), expected)
    bits = distributions.ContinuousBernoulli(logits=output)
    expected = bits.log_prob(x.sigmoid()) - bits._cont_bern_log_norm()
    torch.testing.assert_close(Bernoulli().double().log_density(x.sigmoid(), output), expected)
    gaussian, learned = Gaussian().double(), GaussianLearned().double()
    gaussian.variance.fill_(0.3)
    expected = distributions.Normal(output, math.sqrt(0.3)).log_prob(x)
    torch.testing.assert_close(gaussian.log_density(x, output), expected)
    both = torch.cat([output, log_variance], -1)
    expected = distributions.Normal(output, (0.5 * log_variance).exp()).log_prob(x)
    torch.testing.assert_close(learned.log_density(x, both), expected)
    torch.testing.assert_close(learned.mean(both), output)


@pytest.mark.parametrize(("scale", "updates"), [(1.0, 1), (1e2, 8), (1e-4, 8), (0.0, 8)])
def test_the_variance_becomes_the_squared_error_however_small_it_is(
    scale: float, updates: int
) -> None:
    """In single precision as well: it approaches them in a few epochs, and never falls below."""
    x, output = (scale * t.float() for t in moments(5))
    least = max((x.double() - output.double()).square().mean().item(), LEAST_VARIANCE)
    gaussian, weight = Gaussian(), x.new_ones(len(x), 1)
    gaussian.variance.fill_(0.1)  # rounding hides small errors behind less than nothing
    for _ in range(updates):
        density = gaussian(x, output[:, None], None)
        sums = gaussian.statistics(x, density, weight, None)
        gaussian.maximise({name: value.double() for name, value in sums.items()})
        assert gaussian.variance.item() >= 0.999 * least
    assert gaussian.variance.item() == pytest.approx(least, rel=1e-5, abs=0)


@pytest.mark.parametrize("likelihood", [ItakuraSaito(), Bernoulli(), Gaussian(), GaussianLearned()])
@pytest.mark.parametrize("masked", [False, True])
def test_rows_are_compared_in_parts_and_what_is_missing_says_nothing(
    likelihood: Likelihood, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = torch.Generator().manual_seed(0)
    x, chance = torch.rand(2, 7, 5, generator=draws)
    output = torch.randn(4, 5 * likelihood.outputs, generator=draws)
    place = torch.randint(4, (7, 3), generator=draws)
    mask = chance < 0.5 if masked else None
    seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    expected = likelihood.log_density(x[:, None], output[place]).where(seen[:, None], 0.0).sum(-1)
    torch.testing.assert_close(likelihood(x, output[place], mask), expected)
    altered = likelihood(x.where(seen, 123.0), output[place], mask)
    assert torch.equal(altered, likelihood(x, output[place], mask))
    monkeypatch.setattr(likelihoods, "COMPARED", 2 * place.shape[1] * output.shape[1])
    torch.testing.assert_close(likelihood.pairs(x, output, place, mask), expected)


@pytest.mark.parametrize(("rows", "atoms"), [(32, 32), (32, 64), (64, 32)])
def test_the_dct_is_that_of_the_paper_and_a_constant_atom(rows: int, atoms: int) -> None:
    """The dictionary of the paper lacks one rank."""
    matrix = dct(rows, atoms).double()
    torch.testing.assert_close(matrix.norm(dim=0), torch.ones(atoms).double())
    torch.testing.assert_close(matrix[:, 0], torch.full((rows,), rows**-0.5).double())
    assert int(torch.linalg.matrix_rank(matrix)) == min(rows, atoms)
    place, frequency = torch.arange(rows).double(), torch.arange(1, atoms + 1).double()
    columns = torch.cos(place[:, None] * torch.pi * frequency / atoms)  # its equation 11
    columns -= columns.mean(0)
    theirs = columns[:, :-1] / columns[:, :-1].norm(dim=0)
    torch.testing.assert_close(theirs, matrix[:, 1:], atol=1e-6, rtol=0)
    if atoms >= rows:
        assert int(torch.linalg.matrix_rank(columns)) == rows - 1


def test_a_dictionary_returns_to_unit_columns_and_its_coherence_falls_along_the_gradient() -> None:
    model = SDM(SDMModel(latent=8, dictionary="learned", atoms=12), dims=5)
    with torch.no_grad():
        model.dictionary.mul_(3.0)
    model.project()
    torch.testing.assert_close(model.dictionary.norm(dim=0), torch.ones(12))
    assert float(coherence(torch.eye(6))) == 0
    dictionary = dct(16, 32).requires_grad_()
    before = coherence(dictionary)
    (gradient,) = torch.autograd.grad(before, dictionary)
    assert coherence(dictionary - 0.1 * gradient) < before


def _rows(dims: int = 5, rows: int = 7) -> tuple[Batch, Noise]:
    x = torch.rand(rows, dims, generator=torch.Generator().manual_seed(1))
    row = torch.arange(rows)
    return Batch(x, row), Noise(0, 0, row)


def test_with_the_identity_and_gamma_fixed_at_one_the_sdm_is_the_vae() -> None:
    torch.manual_seed(0)
    vae = VAE(VAEModel(latent=4, hidden=(6,)), dims=5)
    sdm = SDM(SDMModel(latent=4, hidden=(6,)), dims=5)
    sdm.decoder.load_state_dict(vae.decoder.state_dict())
    batch, noise = _rows()
    q = GaussianPosterior(*(t[:, :4].float() for t in moments(0, rows=7)))
    assert torch.equal(sdm.objective(batch, q, noise), vae.objective(batch, q, noise))
    assert torch.equal(sdm.bound(batch, q, noise), vae.bound(batch, q, noise))


@given(st.floats(0.01, 0.99), st.integers(2, 50))
def test_relaxed_gates_approach_hard_ones_as_they_sharpen(gamma: float, seed: int) -> None:
    mean, log_variance = moments(seed, rows=200)
    zero = torch.zeros_like(mean)
    noise = Noise(seed, 0, torch.arange(200))

    def gated(sharpness: float) -> SpikeAndSlab:
        return SpikeAndSlab(zero + gamma, mean, log_variance, sharpness, zero + 0.5, zero, zero)

    hard = gated(1.0).points(1, noise)[0]
    far = [float((gated(c).sample(1, noise) - hard).abs().mean()) for c in (20.0, 200.0, 20000.0)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.01
    share = (hard != 0).double().mean()
    assert share == pytest.approx(gamma, abs=5 * math.sqrt(gamma * (1 - gamma) / hard.numel()))


@pytest.mark.parametrize("way", ["torch", "device"])
def test_powers_of_zero_pull_no_further_than_the_least_log_variance(way: str) -> None:
    x = torch.tensor([[0.0, 1e-30, 2.0]]).double().repeat(5, 1)
    output = torch.tensor([-1000.0, -41.0, -39.0, 0.0, 30.0]).double()[:, None].repeat(1, 3)
    limited = output.clamp(min=-40.0)
    expected = (x / limited.exp() - 1).where(output >= -40, 0.0)
    if way == "torch":
        output.requires_grad_()
        density = ItakuraSaito()(x, output[:, None], None)
        torch.testing.assert_close(density[:, 0], (-limited - x / limited.exp()).sum(1))
        density.sum().backward()
        found = output.grad
    else:
        found = torch.empty_like(output)
        PULLS[ItakuraSaito](Batch(x, torch.arange(5)), output, 1, found)
        found = -found
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("offset", "step", "missing"), [(0.0, 1.0, 0.0), (2e7, 2.0, 0.3)])
def test_the_variance_of_data_far_from_zero_is_that_of_numpy(
    offset: float, step: float, missing: float
) -> None:
    chance = np.random.default_rng(0)
    x = (offset + step * (chance.random((4000, 4)) < 0.01)).astype(np.float32)
    x[chance.random(x.shape) < missing] = np.nan
    found = mean_variance(torch.from_numpy(block) for block in np.split(x, [7, 1000]))
    assert found == pytest.approx(np.nanvar(x.astype(np.float64), axis=0).mean(), rel=1e-9)


def test_densities_stay_finite_at_their_limits() -> None:
    output = torch.tensor([-1e4, -41.0, -39.0, 0.0], dtype=torch.float64)
    power = torch.full_like(output, 1e-18)
    expected = distributions.Exponential(1 / ItakuraSaito().mean(output)).log_prob(power)
    torch.testing.assert_close(ItakuraSaito().log_density(power, output), expected)
    assert ItakuraSaito().mean(torch.tensor([43.5, 1e4])).square().isfinite().all()
    x, output = torch.tensor([[0.5, 1.0]]), torch.tensor([[0.5, 0.5, -1000.0, 1000.0]])
    deviation = torch.tensor([math.exp(-10), math.exp(5)])
    found = GaussianLearned().log_density(x, output)
    torch.testing.assert_close(found, distributions.Normal(0.5, deviation).log_prob(x))
    with pytest.raises(Refusal, match="scale the columns"):
        Gaussian().start(None, lambda: 1e-31)


def test_redrawn_states_keep_their_support_and_follow_the_priors_slab() -> None:
    """Inactive values stay inactive, and active values are drawn from the prior."""
    from scipy import stats

    noise, (mean, log_variance) = Noise(1, 0, torch.arange(4)), moments(0)
    q = spike_and_slab(0)
    states = q.redrawn(500, noise)
    active = (q.gamma > 0.5)[:, None].expand_as(states)
    assert torch.equal(states != 0, active)
    standard = (states - q.prior_mean[:, None]) / (q.prior_log_variance / 2).exp()[:, None]
    gamma = mean.square() + log_variance.exp()
    own = LearnedVariance(mean, log_variance).redrawn(500, noise) / gamma.sqrt()[:, None]
    plain = GaussianPosterior(mean, log_variance).redrawn(500, noise)
    for values in (standard[active], own, plain):
        assert stats.kstest(values.ravel().numpy(), "norm").pvalue > 1e-3
