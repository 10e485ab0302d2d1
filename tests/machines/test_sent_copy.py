"""What a worker sends to a keeper: the same copy arrives, in however many messages."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distvae.machines.copies import sent_copy
from distvae.machines.copies.keeper import Extent, Keeper, WorkerState
from distvae.machines.copies.keepers import SENT_BYTES
from distvae.machines.copies.sent_copy import SentCopy

STATES, WORDS = 64, 16
ROW = 8 * STATES * WORDS
"""Bytes of the states of a row."""
STATE = WorkerState({}, {}, {})


class Here:
    """A keeper in this process, which counts the bytes of states in each message."""

    def __init__(self) -> None:
        self.keeper, self.sizes = Keeper(), list[int]()

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., object] = getattr(self.keeper, name)

        class Remote:
            @staticmethod
            def remote(*values: Any) -> object:
                words = [values[2]] if name == "put" else []
                if name == "update":
                    words = [each.words for each in values[1].changed]
                self.sizes.append(sum(each.nbytes for each in words))
                return method(*values)

        return Remote


@pytest.mark.parametrize("rows", [10, 4 * SENT_BYTES // ROW])
def test_many_changed_states_are_sent_in_several_messages(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sent_copy, "answer", lambda given: given)
    here, chance = Here(), np.random.default_rng(0)
    copy = SentCopy(here, "now")

    def drawn(count: int) -> Any:
        return chance.integers(0, 2**40, (count, STATES, WORDS))

    first, second = drawn(rows), drawn(rows)
    copy.fill(Extent(0, 1, rows, STATES, WORDS), [(slice(0, rows), first)])
    copy.reach((0, 1), STATE)
    here.sizes.clear()
    order = chance.permutation(rows)
    for places in (order[: rows // 2], order[rows // 2 :]):
        copy.put(places, second[places])
    copy.reach((0, 2), STATE)
    assert sum(here.sizes) == rows * ROW
    assert max(here.sizes) <= SENT_BYTES
    assert (len(here.sizes) == 1) == (rows == 10)
    np.testing.assert_array_equal(here.keeper.read("now", slice(0, rows)), second)
    here.keeper.return_to("now", (0, 1))
    np.testing.assert_array_equal(here.keeper.read("now", slice(0, rows)), first)
