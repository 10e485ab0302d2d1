"""Lanes: every row once an epoch, equal shares of each lane in a batch, one holder for each row."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.numerics.lanes import Lanes

ROWS, BATCH, SIZE = st.integers(1, 700), st.integers(1, 200), st.integers(1, 5)


@given(ROWS, BATCH, st.integers(0, 2**32), st.integers(0, 1000))
def test_an_epoch_visits_every_row_once(rows: int, batch: int, seed: int, epoch: int) -> None:
    assert sorted(Lanes.of(rows, batch).schedule(seed, epoch)) == list(range(rows))


@given(ROWS, BATCH)
def test_a_batch_takes_as_many_rows_from_each_lane_until_one_runs_out(
    rows: int, batch: int
) -> None:
    lanes = Lanes.of(rows, batch)
    schedule = lanes.schedule(0, 0)
    for start in range(0, rows // lanes.count * lanes.count - batch + 1, batch):
        counts = np.bincount(schedule[start : start + batch] % lanes.count, minlength=lanes.count)
        assert set(counts) == {batch // lanes.count}


@given(ROWS, BATCH, SIZE)
def test_every_row_has_one_holder_who_finds_it_at_its_index(
    rows: int, batch: int, size: int
) -> None:
    lanes, found = Lanes.of(rows, batch), []
    for rank in range(size):
        held = lanes.held(rank, size)
        own = held.part(slice(None))
        assert held.index(torch.from_numpy(own)).tolist() == list(range(len(own)))
        found += own.tolist()
    assert sorted(found) == list(range(rows))


@given(ROWS, BATCH, SIZE)
def test_holders_share_a_batch_evenly(rows: int, batch: int, size: int) -> None:
    lanes = Lanes.of(rows, batch)
    schedule = lanes.schedule(0, 0)[:batch]
    if len(schedule) == batch and lanes.count % size == 0:
        assert {len(lanes.held(rank, size).select(schedule)) for rank in range(size)} == {
            batch // size
        }


def test_epochs_and_lanes_are_shuffled_apart() -> None:
    lanes = Lanes(640, 32)
    one, other = lanes.schedule(0, 0), lanes.schedule(0, 1)
    assert not np.array_equal(one, other)
    dealt = one.reshape(-1, 32) // 32
    assert not (dealt[:, 0] == dealt[:, 1]).all()
