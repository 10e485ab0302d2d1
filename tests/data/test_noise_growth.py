"""Laws of noise that grows with brightness: how it is found, made alike, and left again."""

import numpy as np
import pytest
import torch

from distvae.data.noise import NoiseGrowth
from distvae.numerics.array_types import Doubles

RATES = np.array([0.1, 0.7, 2.0, 5.0, 17.0, 60.0, 99.0, 150.0])


def expected(growth: NoiseGrowth, x: float, share: float) -> float:
    """Return the mean of what is stabilised, by torch's distributions on a fine grid."""
    events = (x - growth.dark) / growth.gain
    counts = torch.arange(500, dtype=torch.float64)
    chances = torch.distributions.Poisson(torch.tensor(events, dtype=torch.float64))
    deviation = growth.gain * max(growth.spread, 1e-12) ** 0.5
    grid = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(grid).exp()
    noisy = growth.gain * counts[:, None] + growth.dark + deviation * grid
    values = growth.stabilised((share * noisy + (1 - share) * x).numpy(), share)
    given_count = torch.from_numpy(values) @ density / density.sum()
    return float(chances.log_prob(counts).exp() @ given_count)


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize(
    "growth", [NoiseGrowth(1.0, 0.0), NoiseGrowth(0.5, 2.0), NoiseGrowth(3.0, -30.0)]
)
def test_the_way_back_is_unbiased(growth: NoiseGrowth, share: float) -> None:
    values = growth.dark + growth.gain * RATES
    means = np.array([expected(growth, float(x), share) for x in values])
    assert np.allclose((growth.back(means, share) - values) / growth.gain, 0, atol=0.01)


def test_counts_of_four_and_more_have_noise_of_one_once_stabilised() -> None:
    growth, random = NoiseGrowth(2.0, 3.0), np.random.default_rng(0)
    for x in (8.0, 40.0, 300.0):
        noisy = 2 * random.poisson(x / 2, 100_000) + 3**0.5 * random.standard_normal(100_000)
        assert growth.stabilised(noisy).var() == pytest.approx(1.0, rel=0.05)


def ramp(side: int = 160) -> Doubles:
    y, x = np.mgrid[:side, :side].astype(np.float64)
    slope: Doubles = (20 + 1.2 * x + 0.1 * y)[..., None]
    return slope


@pytest.mark.parametrize(("gain", "offset"), [(0.8, 12.0), (4.0, 100.0), (1.0, 0.0)])
def test_growth_is_found_on_a_slope(gain: float, offset: float) -> None:
    x = ramp()
    noise = np.random.default_rng(0).standard_normal(x.shape) * np.sqrt(gain * x + offset)
    found = NoiseGrowth.estimate([x + noise])
    assert found is not None
    for value in (30.0, 120.0, 220.0):
        variance = found.gain * value + found.offset
        assert variance == pytest.approx(gain * value + offset, rel=0.15)


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_units_do_not_matter(factor: float) -> None:
    x = np.random.default_rng(0).poisson(ramp() / 10).astype(np.float64)
    one, other = NoiseGrowth.estimate([x]), NoiseGrowth.estimate([x * factor])
    assert one is not None
    assert other is not None
    assert other.gain == pytest.approx(one.gain * factor)
    stable = one.stabilised(x)
    assert np.allclose(other.stabilised(x * factor), stable)
    assert np.allclose(other.back(stable), one.back(stable) * factor, rtol=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 25.0, 100.0])
def test_noise_that_is_alike_everywhere_does_not_grow(sigma: float) -> None:
    for seed in range(5):
        noise = sigma * np.random.default_rng(seed).standard_normal((160, 160, 1))
        assert NoiseGrowth.estimate([ramp() + noise]) is None


def test_a_picture_without_noise_has_none_that_grows() -> None:
    assert NoiseGrowth.estimate([ramp()]) is None
    assert NoiseGrowth.estimate([np.zeros((40, 40, 1))]) is None


def test_counts_without_noise_have_a_gain() -> None:
    flat = np.zeros((40, 40, 1))
    flat[10:] = 3.0
    assert NoiseGrowth.counts([flat]).gain == 3.0


@pytest.mark.parametrize("gain", [1.0, 7.3, 1 / 257])
def test_the_gain_of_counts_is_the_step_between_values(gain: float) -> None:
    counts = gain * np.random.default_rng(0).poisson(ramp(64) / 30)
    found = NoiseGrowth.counts([counts])
    assert found.gain == pytest.approx(gain)
    assert found.offset == 0
