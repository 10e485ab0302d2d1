"""Which points no other beats, and the area they cover, against counting."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.report.drawing import spread_apart
from distvae.report.fronts import Dot, draw_front
from distvae.report.pareto import front, hypervolume
from tests.slowly import slow

SIDE = 7
PLACE = st.tuples(st.integers(0, SIDE), st.integers(0, SIDE))
PLACES = st.lists(PLACE, max_size=10)


@given(PLACES, PLACE)
def test_the_hypervolume_counts_the_cells_that_some_point_covers(
    points: list[tuple[int, int]], at: tuple[int, int]
) -> None:
    cells = product(range(at[0], SIDE), range(at[1], SIDE))
    covered = sum(any(x < right and y < top for right, top in points) for x, y in cells)
    assert (
        hypervolume([(float(x), float(y)) for x, y in points], (float(at[0]), float(at[1])))
        == covered
    )


@given(PLACES)
def test_the_front_is_what_no_other_point_beats(points: list[tuple[int, int]]) -> None:
    kept = {
        (x, y)
        for x, y in points
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
    }
    found = front([(float(x), float(y)) for x, y in points])
    assert set(found) == kept
    assert found == sorted(found, reverse=True)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.floats(0.1, 20))
def test_labels_keep_their_order_and_distance_and_their_mean(ends: list[float], gap: float) -> None:
    moved = spread_apart(sorted(ends), gap)
    assert all(above - below >= gap - 1e-9 for below, above in pairwise(moved))
    assert sum(moved) == pytest.approx(sum(ends), abs=1e-6)


@pytest.mark.parametrize("groups", [*slow(2, 3), 6])
@pytest.mark.parametrize("name", ["vae", "parents-fitness-crossover-{}"])
def test_the_legend_names_every_group_inside_the_drawing(groups: int, name: str) -> None:
    dots = [Dot(n, (float(n), float(-n)), name.format(n) + "x" * n) for n in range(groups)]
    figure = draw_front(dots, ("up", "across"), (1, 1))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [dot.group for dot in dots]
    around = legend.get_window_extent()
    assert 0 <= around.x0 < around.x1 <= figure.bbox.width


def test_more_groups_than_can_be_told_apart_are_told_by_their_numbers() -> None:
    dots = [Dot(n, (float(n), float(-n)), f"row {n}") for n in range(8)]
    figure = draw_front(dots, ("up", "across"), (1, 1))
    assert not figure.legends
    assert {text.get_text() for text in figure.axes[0].texts} == set("01234567")
