"""Workers agree on the points of their copies, which come about as often as they are wanted."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.machines.copies.pace import Pace
from distvae.train.team import ALONE, Team
from tests.train.crew import crew_of

ENDS = 40


def points(team: Team, pause: float) -> list[bool]:
    """Return which ends of blocks are points, for a worker that takes so long for a block."""
    pace = Pace(team, 0.02)
    chosen = []
    for _ in range(ENDS):
        time.sleep(pause)
        chosen.append(pace.is_point())
    return chosen


def test_workers_of_different_speed_choose_the_same_points() -> None:
    with crew_of(2) as crew:
        first, second = crew.all(points, [0.0, 0.003])
    assert first == second
    assert any(first)
    assert not all(first)


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.floats(0.0, 5.0),
    blocks=st.lists(st.floats(0.001, 10.0), min_size=1, max_size=60),
)
def test_the_blocks_from_one_point_to_the_next_at_most_double(
    seconds: float, blocks: list[float]
) -> None:
    now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        pace, since, most = Pace(ALONE, seconds), 0, 1
        for block in blocks:
            now, since = now + block, since + 1
            if pace.is_point():
                # from one point to the next the number of blocks at most doubles
                assert since <= most
                most, since = 2 * since, 0
            else:
                assert since < most
        assert since < most


@pytest.mark.parametrize(("block", "apart"), [(0.01, 50), (0.1, 5), (0.4, 1), (3.0, 1)])
def test_points_settle_at_half_a_second_or_at_one_block(block: float, apart: int) -> None:
    now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        pace, found = Pace(ALONE, 0.5), []
        for number in range(400):
            now += block
            if pace.is_point():
                found.append(number)
    assert found[-1] - found[-2] in (apart, apart - 1, apart + 1)
