"""Metrics of sparsity: known values, and invariances; the names of metrics and of their spreads."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.numerics.metrics import effective_atoms, hoyer, live_atoms, without_spreads


def test_one_value_is_as_sparse_as_can_be_and_equal_ones_are_not_at_all() -> None:
    code = torch.tensor([[0.0, 3.0, 0.0, 0.0], [2.0, -2.0, 2.0, 2.0], [1.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(hoyer(code), torch.tensor([1.0, 0.0, 2 - math.sqrt(2)]))
    torch.testing.assert_close(effective_atoms(code), torch.tensor([1.0, 4.0, 2.0]))


@pytest.mark.parametrize("size", [1, 5])
def test_a_row_of_zeros_has_no_sparsity(size: int) -> None:
    assert hoyer(torch.zeros(1, size)).isnan().all()
    assert effective_atoms(torch.zeros(1, size)).isnan().all()


def test_a_code_of_one_value_is_not_sparse() -> None:
    assert hoyer(torch.tensor([[3.0], [-0.1]])).tolist() == [0, 0]


@given(st.integers(0, 2**31), st.sampled_from([1e-38, 1e-25, 1.0, 1e19]), st.sampled_from([32, 64]))
def test_the_scale_of_a_code_says_nothing_of_its_sparsity(
    seed: int, scale: float, size: int
) -> None:
    code = np.random.default_rng(seed).normal(size=(4, size)) * scale
    x = torch.from_numpy(code.astype(np.float32))
    exact = np.abs(code / scale).sum(1) ** 2 / np.square(code / scale).sum(1)
    assert effective_atoms(x).numpy() == pytest.approx(exact, rel=1e-3)
    assert hoyer(x).numpy() == pytest.approx((size**0.5 - exact**0.5) / (size**0.5 - 1), rel=1e-3)


def test_gaussian_and_half_silent_codes_have_the_values_known_of_them() -> None:
    code = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0))
    assert float(hoyer(code).mean()) == pytest.approx(0.238, abs=0.003)
    code[:, ::2] = 0
    assert float(hoyer(code).mean()) == pytest.approx(0.519, abs=0.01)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_column_lives_above_a_tenth_of_the_strongest(scale: float) -> None:
    code = scale * torch.tensor([[1.0, 0.11, 0.09, 0.0]])
    assert live_atoms(code).tolist() == [True, True, False, False]


def test_only_the_spread_of_a_figure_is_one() -> None:
    names = ["pesq_wb", "pesq_wb_std", "iw_bound", "iw_bound_row_std", "hoyer_std"]
    assert without_spreads(names) == ["pesq_wb", "iw_bound", "iw_bound_row_std", "hoyer_std"]
