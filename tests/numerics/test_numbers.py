"""Figures keep the digits that matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.numerics.numbers import counted, in_column, listed, shown, with_spread


@given(st.floats(-1e300, 1e300))
def test_what_is_shown_is_the_figure_to_four_digits(value: float) -> None:
    assert float(shown(value)) == pytest.approx(value, rel=5.1e-4)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (16.0, "16"),
        (0.0, "0"),
        (-0.0, "0"),
        (-4123.456, "-4123.5"),
        (2.0711, "2.071"),
        (0.3079, "0.3079"),
        (0.01085, "0.01085"),
        (1e-7, "1e-07"),
    ],
)
def test_figures_look_as_a_person_writes_them(value: float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.567, "1234.567"), (0.1, "0.100"), (0.0, "0.000"), (0.0004, "0.0004"), (-3e-7, "-3e-07")],
)
def test_a_column_has_three_decimals_unless_they_say_nothing(value: float, text: str) -> None:
    assert in_column(value) == text


def test_a_spread_has_the_decimals_of_its_mean_and_never_vanishes() -> None:
    assert with_spread(2.5, 0.125) == "2.500 \N{PLUS-MINUS SIGN} 0.125"
    assert with_spread(2163.4, 0.0004) == "2163.4 \N{PLUS-MINUS SIGN} 0.0004"
    assert with_spread(2.0, 0.0) == "2 \N{PLUS-MINUS SIGN} 0.000"
    assert with_spread(2.5, None) == "2.500"


def test_words_are_listed_and_counted() -> None:
    assert [listed(list("abc"[:n])) for n in range(4)] == ["none", "a", "a and b", "a, b and c"]
    assert [counted(n, "trial") for n in (0, 1, 1200)] == ["0 trials", "1 trial", "1,200 trials"]
