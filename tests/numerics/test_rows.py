"""Lanes and bands: every row once an epoch, equal shares of a batch, one holder for each row. Keyed
permutations: each place once, and all permutations equally likely.
"""

import math
import tracemalloc
from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.numerics import rows as module
from distvae.numerics.noise import mix
from distvae.numerics.rows import (
    LISTED,
    Bands,
    FreeRows,
    HeldBands,
    Lanes,
    Permutations,
    RowNumbers,
    derived_keys,
    divide,
    mix_words,
    share_of,
)

ROWS, BATCH, SIZE = st.integers(1, 700), st.integers(1, 200), st.integers(1, 5)
SEED, EPOCH = st.integers(0, 2**32), st.integers(-1, 1000)
KEY = st.integers(-(2**63), 2**63 - 1)
IS_BANDS = st.booleans()


def division_of(rows: int, batch: int, is_bands: bool) -> Lanes:
    """Divide rows into lanes or bands, whatever their number."""
    return Bands(rows, min(rows, batch)) if is_bands else Lanes.of(rows, batch)


@given(ROWS, BATCH, SEED, EPOCH)
def test_an_epoch_visits_every_row_once_and_a_batch_takes_equally_many_rows_of_each_shard(
    rows: int, batch: int, seed: int, epoch: int
) -> None:
    lanes, bands = Lanes.of(rows, batch), Bands(rows, min(rows, batch))
    starts = np.array([bands.start(band) for band in range(bands.count)])
    assert np.ptp(np.diff([*starts, rows])) <= 1
    by_lanes, by_bands = lanes.schedule(seed, epoch), bands.schedule(seed, epoch)
    assert sorted(by_lanes) == sorted(by_bands) == list(range(rows))
    for start in range(0, rows // lanes.count * lanes.count - batch + 1, batch):
        counts = np.bincount(by_lanes[start : start + batch] % lanes.count, minlength=lanes.count)
        assert set(counts) == {batch // lanes.count}
    for first in range(0, rows - bands.count + 1, bands.count):
        band = np.searchsorted(starts, by_bands[first : first + bands.count], "right") - 1
        assert band.tolist() == list(range(bands.count))


@settings(max_examples=50)
@given(st.integers(1, 60), BATCH, SIZE, st.integers(1, 60), st.integers(1, 50), IS_BANDS)
def test_workers_have_the_batches_of_one_in_their_own_rows(
    rows: int, batch: int, size: int, step: int, computed: int, is_bands: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPUTED", computed)
        division = division_of(rows, batch, is_bands)
        whole = division.schedule(5, 6)
        for rank in range(size):
            held = division.held(rank, size)
            order = held.order(5, 6)
            for first in range(0, rows, step):
                part = whole[first : first + step]
                assert order(first, first + step).tolist() == held.select(part).tolist()


@given(ROWS, BATCH, SIZE, IS_BANDS)
def test_every_row_has_one_holder_who_finds_it_at_its_index_and_batches_are_shared_evenly(
    rows: int, batch: int, size: int, is_bands: bool
) -> None:
    division, found = division_of(rows, batch, is_bands), []
    held_bands = [len(Bands(rows, min(rows, batch)).held(r, size).bands) for r in range(size)]
    assert max(held_bands) - min(held_bands) <= 1
    for rank in range(size):
        held = division.held(rank, size)
        own = held.part(slice(None))
        assert len(own) == len(held)
        assert held.index(torch.from_numpy(own)).tolist() == list(range(len(own)))
        assert held.select(np.arange(rows)).tolist() == own.tolist()
        assert held.part(slice(2, 9)).tolist() == own[2:9].tolist()
        found += own.tolist()
        if not is_bands and division.count % size == 0 and batch <= rows:
            assert len(held.select(division.schedule(0, 0)[:batch])) == batch // size
    assert sorted(found) == list(range(rows))


@given(ROWS, BATCH, SIZE, SIZE, st.tuples(IS_BANDS, IS_BANDS))
def test_holders_know_whether_others_may_have_their_rows(
    rows: int, batch: int, size: int, others: int, kinds: tuple[bool, bool]
) -> None:
    division, other_division = (division_of(rows, batch, is_bands) for is_bands in kinds)
    held = division.held(size - 1, size)
    for rank in range(others):
        other = other_division.held(rank, others)
        both = np.intersect1d(held.part(slice(None)), other.part(slice(None)))
        assert held.overlaps(other) or not len(both)
        assert held.overlaps(other) == other.overlaps(held)


@pytest.mark.parametrize("is_bands", [False, True])
def test_epochs_seeds_and_shards_have_different_orders(is_bands: bool) -> None:
    division = division_of(3000, 30, is_bands)
    found = [division.schedule(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for place, one in enumerate(found):
        for other in found[:place]:
            assert np.mean(one == other) < 0.03, "a hundredth of the rows are in the same place"
    dealt = found[0].reshape(-1, division.count)
    relative = dealt % 100 if is_bands else dealt // division.count
    assert np.mean(relative[:, 0] == relative[:, 1]) < 0.2


def test_only_many_rows_are_divided_into_bands() -> None:
    few, many = divide(LISTED, 96), divide(LISTED + 1, 96)
    assert (few, many) == (Lanes(LISTED, 32), Bands(LISTED + 1, 96))
    assert isinstance(share_of(few, 96, 0, 1, False), FreeRows)
    assert isinstance(share_of(many, 96, 0, 1, False), HeldBands)


def test_orders_are_the_same_on_every_machine_and_in_every_version() -> None:
    def digest(rows: RowNumbers) -> str:
        return sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]

    assert digest(Lanes.of(1000, 96).schedule(3, 4)) == "4878b137b3b047dd"
    assert digest(Bands(1000, 96).schedule(3, 4)) == "dc6e8751c1d52ab5"
    order = Bands(10**12, 2048).held(5, 64).order(3, 4)
    assert digest(order(10**9, 10**9 + 9999)) == "451f477efa5517fa"


def test_a_worker_with_a_billion_rows_needs_memory_for_the_next_batches_alone() -> None:
    held = Bands(10**9, 1024).held(3, 64)
    tracemalloc.start()
    order = held.order(0, 0)
    for batch in range(3):
        assert held.contains(order(1024 * batch, 1024 * batch + 1024)).all()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


def permutations(key: int, length: int, count: int = 1) -> RowNumbers:
    """Return (length, count) permutations of one length, whose keys are derived from one."""
    keys = derived_keys(key, np.arange(count))
    return Permutations(keys, np.full(count, length)).at(0, length)


@given(
    KEY,
    st.integers(2, 500),
    st.lists(st.integers(0, 1), min_size=1, max_size=9),
    st.tuples(st.integers(0, 500), st.integers(0, 500)).map(sorted),
)
def test_every_number_has_one_place_in_permutations_of_different_lengths(
    key: int, length: int, shorter: list[int], part: list[int]
) -> None:
    lengths = length - np.array(shorter)
    made = Permutations(derived_keys(key, np.arange(len(lengths))), lengths)
    found = made.at(0, length)
    for column, own in zip(found.T, lengths.tolist(), strict=True):
        assert sorted(column[:own]) == list(range(own))
    first, last = (min(place, length) for place in part)
    assert np.array_equal(made.at(first, last), found[first:last])


@given(st.lists(KEY, min_size=1, max_size=20))
def test_words_are_mixed_as_tensors_are(words: list[int]) -> None:
    mixed = mix_words(np.array(words).astype(np.uint64))
    assert torch.equal(torch.from_numpy(mixed.astype(np.int64)), mix(torch.tensor(words)))


def excess(counts: RowNumbers) -> float:
    """Return by how many of its deviations chi-square is above its mean, for equal chances."""
    expected, freedom = counts.mean(), counts.size - 1
    chi_square = float(((counts - expected) ** 2).sum() / expected)
    return (chi_square - freedom) / math.sqrt(2 * freedom)


def test_permutations_are_equally_likely() -> None:
    """Of a few numbers, all permutations; of many, a number and the step to the next."""
    for length in (2, 5):
        numbers = (permutations(7, length, 20_000) * length ** np.arange(length)[:, None]).sum(0)
        _, counts = np.unique(numbers, return_counts=True)
        assert len(counts) == math.factorial(length)
        assert excess(counts) < 4
    for length in (100, 256):
        made = Permutations(derived_keys(9, np.arange(30_000)), np.full(30_000, length))
        for place in (0, length // 2, length - 2):
            one, following = made.at(place, place + 2)
            assert excess(np.bincount(one, minlength=length)) < 4
            assert excess(np.bincount((following - one) % length, minlength=length)[1:]) < 4


def test_permutations_of_different_keys_are_unlike() -> None:
    length = 3000
    found = permutations(3, length, 6)
    for i in range(6):
        for other in (found[:, i - 1], np.arange(length)):
            pairs = found[:, i] * 16 // length * 16 + other * 16 // length
            assert abs(excess(np.bincount(pairs, minlength=256))) < 4
    assert np.abs(np.corrcoef(found.T) - np.eye(6)).max() < 4 / math.sqrt(length)
