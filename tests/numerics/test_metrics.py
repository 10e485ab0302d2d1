"""Metrics of sparsity: known values and invariances; names of metrics; figures as shown."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.numerics.metrics import (
    brief,
    counted,
    effective_atoms,
    hoyer,
    listed,
    live_atoms,
    shown,
    with_spread,
    without_spreads,
)


def test_one_value_is_as_sparse_as_can_be_and_equal_ones_are_not_at_all() -> None:
    code = torch.tensor([[0.0, 3.0, 0.0, 0.0], [2.0, -2.0, 2.0, 2.0], [1.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(hoyer(code), torch.tensor([1.0, 0.0, 2 - math.sqrt(2)]))
    torch.testing.assert_close(effective_atoms(code), torch.tensor([1.0, 4.0, 2.0]))

    for size in (1, 5):
        assert hoyer(torch.zeros(1, size)).isnan().all()
        assert effective_atoms(torch.zeros(1, size)).isnan().all()
    assert hoyer(torch.tensor([[3.0], [-0.1]])).tolist() == [0, 0], "codes of one value"
    for scale in (1e-3, 1e3):  # a column lives above a tenth of the strongest
        columns = scale * torch.tensor([[1.0, 0.11, 0.09, 0.0]])
        assert live_atoms(columns).tolist() == [True, True, False, False]
    rare = torch.zeros(1000, 2)
    rare[:, 0], rare[7, 1] = 1.0, 0.5
    assert live_atoms(rare).tolist() == [True, True], "zeros do not count"


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


def test_only_the_spread_of_a_figure_is_one() -> None:
    names = ["pesq_wb", "pesq_wb_std", "iw_bound", "iw_bound_row_std", "hoyer_std"]
    assert without_spreads(names) == ["pesq_wb", "iw_bound", "iw_bound_row_std", "hoyer_std"]


@given(st.floats(-1e300, 1e300))
def test_what_is_shown_is_the_figure_to_four_digits(value: float) -> None:
    assert float(shown(value)) == pytest.approx(value, rel=5.1e-4)


def test_figures_look_as_a_person_writes_them() -> None:
    figures = (16.0, 0.0, -0.0, -4123.456, 2.0711, 0.3079, 0.01085, 1e-7)
    assert " ".join(map(shown, figures)) == "16 0 0 -4123.5 2.071 0.3079 0.01085 1e-07"
    assert " ".join(map(brief, figures)) == "16 0 0 -4123.5 2.07 0.308 0.0109 1e-07"
    spreads = [(2.5, 0.125), (2163.4, 0.0004), (2.0, 0.0), (2.5, None)]
    expected = ["2.500 \N{PLUS-MINUS SIGN} 0.125", "2163.4 \N{PLUS-MINUS SIGN} 0.0004"]
    expected += ["2 \N{PLUS-MINUS SIGN} 0.000", "2.500"]
    assert [with_spread(*each) for each in spreads] == expected
    assert [listed(list("abc"[:n])) for n in range(4)] == ["none", "a", "a and b", "a, b and c"]
    assert [counted(n, "trial") for n in (0, 1, 1200)] == ["0 trials", "1 trial", "1,200 trials"]
