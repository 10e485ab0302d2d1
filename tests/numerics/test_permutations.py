"""Keyed permutations: each place once for every key and length, and all permutations alike."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.numerics.noise import mix
from distvae.numerics.permutations import Numbers, Permutations, derived_keys, mix_words

KEY = st.integers(-(2**63), 2**63 - 1)


def permutations(key: int, length: int, count: int = 1) -> Numbers:
    """Return (length, count) permutations of one length, whose keys are derived from one."""
    keys = derived_keys(key, np.arange(count))
    return Permutations(keys, np.full(count, length)).at(0, length)


@given(KEY, st.integers(1, 3000))
def test_every_number_has_one_place(key: int, length: int) -> None:
    assert sorted(permutations(key, length)[:, 0]) == list(range(length))


@given(KEY, st.integers(2, 500), st.lists(st.integers(0, 1), min_size=1, max_size=9))
def test_permutations_of_lengths_that_differ_by_one(
    key: int, length: int, shorter: list[int]
) -> None:
    lengths = length - np.array(shorter)
    found = Permutations(derived_keys(key, np.arange(len(lengths))), lengths).at(0, length)
    for column, own in zip(found.T, lengths.tolist(), strict=True):
        assert sorted(column[:own]) == list(range(own))


@given(KEY, st.integers(1, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_a_part_is_that_of_the_whole(key: int, length: int, first: int, last: int) -> None:
    first, last = min(first, last, length), min(max(first, last), length)
    keys = derived_keys(key, np.arange(3))
    part = Permutations(keys, np.full(3, length)).at(first, last)
    assert np.array_equal(part, permutations(key, length, 3)[first:last])


@given(st.lists(KEY, min_size=1, max_size=20))
def test_words_are_mixed_as_tensors_are(words: list[int]) -> None:
    mixed = mix_words(np.array(words).astype(np.uint64))
    assert torch.equal(torch.from_numpy(mixed.astype(np.int64)), mix(torch.tensor(words)))


def excess(counts: Numbers) -> float:
    """Return by how many of its deviations chi-square is above its mean, for equal chances."""
    expected, freedom = counts.mean(), counts.size - 1
    chi_square = float(((counts - expected) ** 2).sum() / expected)
    return (chi_square - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_permutations_of_a_few_numbers_are_equally_likely(length: int) -> None:
    found = permutations(7, length, 20_000)
    numbers = (found * length ** np.arange(length)[:, None]).sum(0)
    _, counts = np.unique(numbers, return_counts=True)
    assert len(counts) == math.factorial(length)
    assert excess(counts) < 4


@pytest.mark.parametrize("length", [100, 256, 1000])
def test_a_number_and_the_step_to_the_next_are_equally_likely(length: int) -> None:
    keys = derived_keys(9, np.arange(30_000))
    made = Permutations(keys, np.full(30_000, length))
    for place in (0, length // 2, length - 2):
        one, following = made.at(place, place + 2)
        assert excess(np.bincount(one, minlength=length)) < 4
        assert excess(np.bincount((following - one) % length, minlength=length)[1:]) < 4


def table(one: Numbers, other: Numbers, parts: int = 16) -> float:
    """Return the excess frequency of pairs: a sixteenth of `one` with a sixteenth of `other`."""
    cells = one * parts // len(one) * parts + other * parts // len(one)
    return excess(np.bincount(cells, minlength=parts * parts))


@pytest.mark.parametrize("length", [3000, 29_999])
def test_two_keys_and_a_key_and_the_places_are_as_unlike_as_two_permutations_of_numpy(
    length: int,
) -> None:
    random = np.random.default_rng(0)
    shuffled = [table(random.permutation(length), np.arange(length)) for _ in range(100)]
    found = permutations(3, length, 6)
    pairs = [(found[:, i], found[:, i - 1]) for i in range(6)]
    alone = [(found[:, i], np.arange(length)) for i in range(6)]
    assert all(min(shuffled) - 1 < table(*pair) < max(shuffled) + 1 for pair in pairs + alone)
    ranks = np.corrcoef(found.T)
    assert np.abs(ranks - np.eye(6)).max() < 4 / math.sqrt(length)
