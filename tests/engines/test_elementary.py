"""Elementary functions in single precision against NumPy in double."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from distvae.engines import elementary

Values = NDArray[np.floating[Any]]
EPSILON = 2.0**-24
"""Half the distance between one and the next number in single precision."""
COUNT = 200_000


def in_a_loop(function: Callable[..., Any]) -> Callable[[Values], Values]:
    """Return the function of arrays as a compiled loop computes it."""

    def loop(x: Values) -> Values:
        out = np.empty_like(x)
        for i in range(len(x)):
            out[i] = function(x[i])
        return out

    made: Any = njit(loop)
    return cast(Callable[[Values], Values], made)


def between(low: float, high: float) -> Values:
    return np.linspace(low, high, COUNT).astype(np.float32)


CASES = [
    (elementary.exp, np.exp, between(-87, 88.7)),
    (elementary.log, np.log, np.exp(between(-87, 88))),
    (elementary.log, np.log, between(0.5, 2)),
    (elementary.tanh, np.tanh, between(-12, 12)),
    (elementary.tanh, np.tanh, np.exp(between(-60, 0))),
]


@pytest.mark.parametrize(("function", "exact", "x"), CASES)
def test_a_polynomial_is_right_to_the_last_digits(
    function: Callable[..., Any], exact: Callable[..., Any], x: Values
) -> None:
    expected = exact(x.astype(np.float64))
    np.testing.assert_allclose(in_a_loop(function)(x), expected, rtol=6 * EPSILON)


def test_a_cosine_is_right_to_the_last_digits_of_one() -> None:
    x = between(0, 2 * np.pi)
    found = in_a_loop(elementary.cosine)(x)
    np.testing.assert_allclose(found, np.cos(x.astype(np.float64)), rtol=0, atol=3 * EPSILON)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (elementary.exp, np.exp),
        (elementary.log, np.log),
        (elementary.tanh, np.tanh),
        (elementary.cosine, np.cos),
    ],
)
def test_in_double_precision_it_is_the_library(
    function: Callable[..., Any], exact: Callable[..., Any]
) -> None:
    x = np.linspace(0.01, 6, 1000)
    np.testing.assert_allclose(in_a_loop(function)(x), exact(x), rtol=1e-15)


def test_what_is_no_number_stays_none() -> None:
    for function in (elementary.exp, elementary.log, elementary.tanh, elementary.cosine):
        assert np.isnan(in_a_loop(function)(np.full(40, np.nan, np.float32))).all()
    forbidden = np.array([-1, -np.inf, np.inf, 0], np.float32)
    assert np.isnan(in_a_loop(elementary.log)(forbidden)).all()


def test_an_exponential_overflows_to_infinity_and_underflows_to_zero() -> None:
    x = np.array([89, 1e4, 1e30, -110, -1e4, -1e30], np.float32)
    np.testing.assert_array_equal(in_a_loop(elementary.exp)(x)[:2], np.inf)
    np.testing.assert_array_equal(in_a_loop(elementary.exp)(x)[3:5], 0)
