"""The names of figures and of their spreads."""

from distvae.numerics.figures import without_spreads


def test_only_the_spread_of_a_figure_is_one() -> None:
    names = ["pesq_wb", "pesq_wb_std", "iw_bound", "iw_bound_row_std", "hoyer_std"]
    assert without_spreads(names) == ["pesq_wb", "iw_bound", "iw_bound_row_std", "hoyer_std"]
