"""Parts of rows, side by side."""

from collections.abc import Iterator
from threading import get_ident

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.estep.search import MIN_ROWS, in_parts


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@given(st.integers(0, 5 * MIN_ROWS))
def test_parts_are_all_rows_in_order(rows: int) -> None:
    parts = in_parts(rows, lambda part: part)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
    assert len(parts) == (2 if rows >= 2 * MIN_ROWS else 1)


def test_each_part_has_a_thread_on_which_torch_uses_no_others() -> None:
    found = in_parts(2 * MIN_ROWS, lambda part: (get_ident(), torch.get_num_threads()))
    assert {threads for _, threads in found} == {1}
    assert get_ident() not in {thread for thread, _ in found}
    assert torch.get_num_threads() == 2


def test_parts_of_a_part_stay_on_its_thread() -> None:
    def threads_within(part: slice) -> tuple[int, list[int]]:
        return get_ident(), in_parts(2 * MIN_ROWS, lambda _: get_ident())

    for thread, within in in_parts(2 * MIN_ROWS, threads_within):
        assert within == [thread]


def test_a_failure_in_a_part_is_raised_and_leaves_the_threads_as_they_were() -> None:
    def fail(part: slice) -> None:
        raise ValueError(f"from {part.start}")

    with pytest.raises(ValueError, match="from 0"):
        in_parts(2 * MIN_ROWS, fail)
    assert torch.get_num_threads() == 2
