"""A fit warns of columns of 64-bit numbers that float32 cannot hold, and of no others."""

import warnings
from typing import Any

import numpy as np
import pandas
import pytest
from numpy.typing import NDArray

from tests.estimators.test_models import rows, small

WARNING = "float32, in which models compute, has steps of about"


def warnings_of(x: Any) -> list[str]:
    """Fit a model, and return its warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        small(epochs=1).fit(x).transform(x)
    assert all(each.filename == __file__ for each in found)
    return [str(each.message) for each in found]


def distinct(x: NDArray[Any]) -> int:
    """Return the number of values that are left in float32."""
    return len(np.unique(x.astype(np.float32)))


@pytest.mark.parametrize("offset", [-1e12])
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_a_column_that_is_lost_in_float32_is_named_once(offset: float, dtype: type) -> None:
    x: NDArray[Any] = (1000 * rows()).astype(dtype)
    x[:, 3] = (abs(offset) * 1e-8 * rows()[:, 3] + offset).astype(dtype)
    assert distinct(x[:, 3]) < len(x) // 2, "the oracle: float32 has few of the values"
    (found,) = warnings_of(x)
    assert found.startswith(f"X: column 3 has values of up to {abs(offset):g}")
    assert WARNING in found
    assert found.endswith("subtract its mean")
    x[:, 3] -= x[:, 3].mean().astype(dtype)
    assert distinct(x[:, 3]) > len(x) // 2
    assert not warnings_of(x)


def test_the_worst_of_several_columns_is_named_by_its_name_in_a_frame() -> None:
    x = pandas.DataFrame(rows(), columns=list("abcde"))
    x["b"], x["d"] = x["b"] + 1e9, x["d"] + 1e12
    (found,) = warnings_of(x)
    assert found.startswith("X: column 'd', the worst of 2, has values of up to 1e+12")


def test_missing_values_are_not_looked_at() -> None:
    x = rows() + 1e9
    x[::3, :4] = np.nan
    x[:, 0] = np.nan
    (found,) = warnings_of(x)
    assert "the worst of 4" in found


def test_columns_that_float32_holds_or_that_do_not_vary_are_let_pass() -> None:
    whole = rows(2000)
    constant = whole.copy()
    constant[:, 2] = 0.1
    constant[:, 3] = np.where(whole[:, 3] > 0, 0.1 + 0.2, 0.3)  # which differ by rounding
    for x in (whole, 1e-3 * whole + 10, constant, (whole + 1e9).astype(np.float32)):
        assert not warnings_of(x)
