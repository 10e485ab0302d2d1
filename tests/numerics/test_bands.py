"""Bands: lanes of consecutive rows, whose order is computed for the batches that come next."""

import tracemalloc
from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.numerics import bands
from distvae.numerics.bands import LISTED, Bands, HeldBands, divide, share_of
from distvae.numerics.lanes import FreeRows, HeldRows, Lanes, RowNumbers

ROWS, BATCH, SIZE = st.integers(1, 700), st.integers(1, 200), st.integers(1, 5)
SEED, EPOCH = st.integers(0, 2**32), st.integers(-1, 1000)


def bands_of(rows: int, batch: int) -> Bands:
    """Return the bands of rows, though they may be few."""
    return Bands(rows, min(rows, batch))


@given(ROWS, BATCH, SEED, EPOCH)
def test_an_epoch_visits_every_row_once(rows: int, batch: int, seed: int, epoch: int) -> None:
    assert sorted(bands_of(rows, batch).schedule(seed, epoch)) == list(range(rows))


@given(ROWS, BATCH)
def test_a_batch_takes_one_row_of_each_band_until_the_last(rows: int, batch: int) -> None:
    found = bands_of(rows, batch)
    starts = np.array([found.start(band) for band in range(found.count)])
    assert np.ptp(np.diff([*starts, rows])) <= 1
    order = found.schedule(0, 0)
    for first in range(0, rows - found.count + 1, found.count):
        band = np.searchsorted(starts, order[first : first + found.count], "right") - 1
        assert band.tolist() == list(range(found.count))


@settings(max_examples=50)
@given(st.integers(1, 60), BATCH, SIZE, st.integers(1, 60), st.integers(1, 50))
def test_workers_have_the_batches_of_one_in_their_own_rows(
    rows: int, batch: int, size: int, step: int, computed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "COMPUTED", computed)
        division = bands_of(rows, batch)
        held = [division.held(rank, size) for rank in range(size)]
        whole = division.schedule(5, 6)
        orders = [part.order(5, 6) for part in held]
        for first in range(0, rows, step):
            found = [order.rows(first, first + step) for order in orders]
            assert np.concatenate(found).tolist() == in_workers(whole[first:][:step], held)


def in_workers(rows: RowNumbers, held: list[HeldBands]) -> list[int]:
    """Return the rows of the first worker, then the rows of the second worker, and so on."""
    return [int(row) for part in held for row in rows[part.contains(rows)]]


@given(ROWS, BATCH, SIZE)
def test_every_row_has_one_holder_who_finds_it_at_its_index(
    rows: int, batch: int, size: int
) -> None:
    division, found = bands_of(rows, batch), []
    for rank in range(size):
        held = division.held(rank, size)
        own = held.part(slice(None))
        assert len(own) == len(held)
        assert held.index(torch.from_numpy(own)).tolist() == list(range(len(own)))
        assert held.select(np.arange(rows)).tolist() == own.tolist()
        assert held.part(slice(2, 9)).tolist() == own[2:9].tolist()
        found += own.tolist()
    assert found == list(range(rows))


@given(ROWS, BATCH, SIZE)
def test_holders_share_a_batch_evenly(rows: int, batch: int, size: int) -> None:
    division = bands_of(rows, batch)
    counts = [len(division.held(rank, size).bands) for rank in range(size)]
    assert max(counts) - min(counts) <= 1


@given(ROWS, BATCH, SIZE, SIZE, st.booleans())
def test_holders_know_whether_others_may_have_their_rows(
    rows: int, batch: int, size: int, others: int, mixed: bool
) -> None:
    division = bands_of(rows, batch)
    other_division = Lanes.of(rows, batch) if mixed else division
    held: HeldRows = division.held(size - 1, size)
    for rank in range(others):
        other = other_division.held(rank, others)
        both = np.intersect1d(held.part(slice(None)), other.part(slice(None)))
        assert held.overlaps(other) or not len(both)
        assert held.overlaps(other) == other.overlaps(held)


def test_different_epochs_and_seeds_have_different_orders() -> None:
    found = [bands_of(3000, 30).schedule(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for place, one in enumerate(found):
        for other in found[:place]:
            assert np.mean(one == other) < 0.03, "a hundredth of the rows are in the same place"


def test_only_many_rows_are_divided_into_bands() -> None:
    assert divide(LISTED, 96) == Lanes(LISTED, 32)
    assert divide(LISTED + 1, 96) == Bands(LISTED + 1, 96)
    assert isinstance(share_of(divide(LISTED, 96), 96, 0, 1, False), FreeRows)
    assert isinstance(share_of(divide(LISTED + 1, 96), 96, 0, 1, False), HeldBands)


def test_orders_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert digest(Lanes.of(1000, 96).schedule(3, 4)) == "4878b137b3b047dd"
    assert digest(Bands(1000, 96).schedule(3, 4)) == "dc6e8751c1d52ab5"
    assert (
        digest(Bands(10**12, 2048).held(5, 64).order(3, 4).rows(10**9, 10**9 + 9999))
        == "451f477efa5517fa"
    )


def digest(rows: RowNumbers) -> str:
    return sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]


def test_a_worker_with_a_billion_rows_needs_memory_for_the_next_batches_alone() -> None:
    held = Bands(10**9, 1024).held(3, 64)
    tracemalloc.start()
    order = held.order(0, 0)
    for batch in range(3):
        assert held.contains(order.rows(1024 * batch, 1024 * batch + 1024)).all()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6
