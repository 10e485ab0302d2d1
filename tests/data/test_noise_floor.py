"""The level of white noise in rows: known levels are found, whatever else is in the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from distvae.data.noise import covariance, noise_floor

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
@settings(max_examples=20, deadline=None)
def test_the_level_of_white_noise_is_found(level: float, seed: int) -> None:
    assert noise_floor(np.float32(level) * white(seed=seed)) == pytest.approx(level, rel=0.05)


@given(level=st.floats(0.01, 3), causes=st.integers(1, DIMS // 2), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_signals_in_few_directions_do_not_change_it(level: float, causes: int, seed: int) -> None:
    rows = of_few_causes(causes, seed=seed) + np.float32(level) * white()
    assert noise_floor(rows) == pytest.approx(level, rel=0.05)


def test_it_has_the_units_of_the_rows_and_ignores_their_mean() -> None:
    rows = of_few_causes(3) + white()
    assert noise_floor(5 * rows + 2) == pytest.approx(5 * noise_floor(rows), rel=1e-5)


def test_a_direction_that_every_row_lacks_hardly_changes_it() -> None:
    rows = of_few_causes(3) + white()
    assert noise_floor(rows - rows.mean(1, keepdims=True)) == pytest.approx(1, rel=0.03)


def test_windows_of_one_sound_overlap() -> None:
    time = np.arange(8000) / 8000
    tones = sum(np.sin(2 * np.pi * pitch * time) for pitch in (150, 300, 450))
    sound = tones + 0.1 * np.random.default_rng(0).standard_normal(8000)
    windows = sliding_window_view(sound, 60).astype(np.float32)
    assert noise_floor(windows) == pytest.approx(0.1, rel=0.03)


def test_without_noise_there_is_none() -> None:
    assert noise_floor(np.ones((100, 4), np.float32)) == 0
    assert noise_floor(of_few_causes(3)) < 1e-3


def test_too_few_rows_tell_nothing() -> None:
    assert noise_floor(white(rows=DIMS)) == 0


def test_the_covariance_is_that_of_all_rows() -> None:
    rows = white(rows=2500) + 3
    expected = np.cov(rows, rowvar=False, bias=True)
    np.testing.assert_allclose(covariance(rows), expected, atol=1e-9)
