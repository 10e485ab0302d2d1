"""Active values drawn again: inactive values stay inactive, and active values follow the prior."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distvae.models.posteriors import Gaussian, LearnedVariance, SpikeAndSlab
from distvae.numerics.noise import Noise

ROWS, H, DRAWS = 4, 6, 500


def noise(seed: int) -> Noise:
    return Noise(seed, 0, torch.arange(ROWS))


def numbers(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, ROWS, H, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**32 - 1))
def test_every_draw_keeps_the_support_of_a_spike_and_slab(seed: int) -> None:
    mean, log_variance, *prior = numbers(seed, 5)
    gamma = prior[0].sigmoid()
    q = SpikeAndSlab(
        gamma, mean, log_variance, 50.0, torch.full_like(mean, 0.1), prior[1], prior[2]
    )
    states = q.redrawn(7, noise(seed))
    assert states.shape == (ROWS, 7, H)
    assert torch.equal(states != 0, (gamma > 0.5)[:, None].expand_as(states))


def test_active_values_follow_the_priors_slab() -> None:
    mean, log_variance, prior_mean, prior_log_variance = numbers(0, 4)
    ones = torch.ones_like(mean)
    q = SpikeAndSlab(ones, mean, log_variance, 50.0, ones, prior_mean, prior_log_variance)
    standard = (q.redrawn(DRAWS, noise(1)) - prior_mean[:, None]) / (prior_log_variance / 2).exp()[
        :, None
    ]
    assert stats.kstest(standard.ravel().numpy(), "norm").pvalue > 1e-3


def test_gaussian_codes_are_drawn_with_the_variances_of_their_prior() -> None:
    mean, log_variance = numbers(0, 2)
    plain = Gaussian(mean, log_variance).redrawn(DRAWS, noise(1))
    assert stats.kstest(plain.ravel().numpy(), "norm").pvalue > 1e-3
    own = LearnedVariance(mean, log_variance).redrawn(DRAWS, noise(2))
    gamma = mean.square() + log_variance.exp()
    assert stats.kstest((own / gamma.sqrt()[:, None]).ravel().numpy(), "norm").pvalue > 1e-3
