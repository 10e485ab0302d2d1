"""Noise: the level of white noise in rows is found whatever else is in them; noise that grows with
brightness is found, made alike, and left again.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distvae.data.noise import NoiseGrowth, noise_floor
from distvae.numerics.arrays import Doubles

Array = NDArray[np.float32]
DIMS = 24


def white(rows: int = 8000, dims: int = DIMS, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, dims)).astype(np.float32)


def of_few_causes(causes: int, rows: int = 8000, seed: int = 1) -> Array:
    """Rows that vary in few directions."""
    draws = np.random.default_rng(seed)
    states, means = draws.standard_normal((rows, causes)), draws.standard_normal((causes, DIMS))
    return (states @ means).astype(np.float32)


@given(level=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_the_level_of_white_noise_is_found(level: float, seed: int) -> None:
    assert noise_floor(np.float32(level) * white(seed=seed)) == pytest.approx(level, rel=0.05)


@given(level=st.floats(0.01, 3), causes=st.integers(1, DIMS // 2), seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_signals_in_few_directions_do_not_change_it(level: float, causes: int, seed: int) -> None:
    rows = of_few_causes(causes, seed=seed) + np.float32(level) * white()
    assert noise_floor(rows) == pytest.approx(level, rel=0.05)


def test_it_has_the_units_of_the_rows_and_ignores_their_mean_and_a_direction() -> None:
    rows = of_few_causes(3) + white()
    assert noise_floor(5 * rows + 2) == pytest.approx(5 * noise_floor(rows), rel=1e-5)
    assert noise_floor(rows - rows.mean(1, keepdims=True)) == pytest.approx(1, rel=0.03)


def test_without_noise_there_is_none_and_too_few_rows_tell_nothing() -> None:
    assert noise_floor(np.ones((100, 4), np.float32)) == 0
    assert noise_floor(of_few_causes(3)) < 1e-3
    assert noise_floor(white(rows=DIMS)) == 0


RATES = np.array([0.1, 0.7, 2.0, 5.0, 17.0, 60.0, 99.0, 150.0])


def expected(growth: NoiseGrowth, x: float, share: float) -> float:
    """Return the mean of what is stabilised, by torch's distributions on a fine grid."""
    events = (x - growth.dark) / growth.gain
    counts = torch.arange(500, dtype=torch.float64)
    chances = torch.distributions.Poisson(torch.tensor(events, dtype=torch.float64))
    deviation = growth.gain * max(growth.spread, 1e-12) ** 0.5
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(grid).exp()
    noisy = growth.gain * counts[:, None] + growth.dark + deviation * grid
    values = growth.stabilised((share * noisy + (1 - share) * x).numpy(), share)
    given_count = torch.from_numpy(values) @ density / density.sum()
    return float(chances.log_prob(counts).exp() @ given_count)


@pytest.mark.parametrize(
    ("growth", "share"),
    [(NoiseGrowth(1.0, 0.0), 1.0), (NoiseGrowth(0.5, 2.0), 0.6), (NoiseGrowth(3.0, -30.0), 0.6)],
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


def test_noise_that_is_alike_everywhere_or_absent_does_not_grow() -> None:
    for seed, sigma in enumerate([1.0, 1.0, 25.0, 25.0, 100.0, 100.0]):
        noise = sigma * np.random.default_rng(seed).standard_normal((160, 160, 1))
        assert NoiseGrowth.estimate([ramp() + noise]) is None
    assert NoiseGrowth.estimate([ramp()]) is None
    assert NoiseGrowth.estimate([np.zeros((40, 40, 1))]) is None
    flat = np.zeros((40, 40, 1))
    flat[10:] = 3.0
    assert NoiseGrowth.counts([flat]).gain == 3.0


@pytest.mark.parametrize("gain", [1.0, 7.3, 1 / 257])
def test_the_gain_of_counts_is_the_step_between_values(gain: float) -> None:
    counts = gain * np.random.default_rng(0).poisson(ramp(64) / 30)
    found = NoiseGrowth.counts([counts])
    assert found.gain == pytest.approx(gain)
    assert found.offset == 0
