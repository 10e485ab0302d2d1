"""Loops over states that torch has no fast words for, compiled when first called.

`population` and `likelihoods` say the same in plain torch, for other devices and for machines
without numba.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Slots = NDArray[np.int32]
Floats = NDArray[np.floating]
F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Machine code for the types of the first call, kept on disk; sums are taken in any order, so
    side by side.
    """
    made: Any = njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})(function)
    return cast(F, made)


def inlined(function: F) -> F:
    """A part of such loops, compiled into each."""
    made: Any = njit(inline="always")(function)
    return cast(F, made)


@inlined
def _ones(word: np.uint64) -> np.uint64:
    """Return the number of active bits of a word."""
    word = word - (word >> np.uint64(1) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (
        word >> np.uint64(2) & np.uint64(0x3333333333333333)
    )
    word = word + (word >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return word * np.uint64(0x0101010101010101) >> np.uint64(56)


@inlined
def _lowest(word: np.uint64) -> np.int64:
    """The place of the lowest active bit."""
    return np.int64(_ones((word & (~word + np.uint64(1))) - np.uint64(1)))


@inlined
def _hash(words: Integers, n: int) -> np.uint64:
    """Return a hash of the n-th state."""
    key = np.uint64(0)
    for w in range(words.shape[1]):
        key = (key ^ np.uint64(words[n, w])) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)


@inlined
def _same(words: Integers, n: int, known: Integers, place: int) -> bool:
    """Return whether the n-th state equals the one at a place among known ones."""
    same = True
    for w in range(words.shape[1]):
        same &= words[n, w] == known[place, w]
    return same


@compiled
def _slots(count: int) -> Slots:
    """Room for so many states and as many more, empty."""
    size = 4
    while size < 2 * count:
        size *= 2
    return np.full(size, -1, np.int32)


@compiled
def tabulate(words: Integers) -> tuple[Integers, Integers]:
    """(U, W) the distinct ones of the states (N, W), and (N,) which of these every state is."""
    slots, known, place = _slots(len(words)), np.empty_like(words), np.empty(len(words), np.int64)
    count, last = 0, np.uint64(len(slots) - 1)
    for n in range(len(words)):
        slot = _hash(words, n) & last
        while slots[slot] >= 0 and not _same(words, n, known, slots[slot]):
            slot = (slot + np.uint64(1)) & last
        if slots[slot] < 0:
            slots[slot] = count
            for w in range(words.shape[1]):
                known[count, w] = words[n, w]
            count += 1
        place[n] = slots[slot]
    return known[:count].copy(), place


@compiled
def heaviest(
    place: Integers, weight: Floats, count: int, least: float
) -> tuple[Integers, Integers, Floats]:
    """Those of so many states whose weight exceeds the least in any row, in order; rows' places (B,
    S) among them.
    """
    moved, kept, used = np.zeros_like(place), np.zeros_like(weight), np.zeros(count, np.int64)
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            if weight[b, s] > least:
                used[place[b, s]] = 1
    # weights that are no numbers: places point at the first state, which therefore has to be there
    if not used.any():
        used[:1] = 1
    heavy = np.flatnonzero(used)
    used[heavy] = np.arange(len(heavy))
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            if weight[b, s] > least:
                moved[b, s], kept[b, s] = used[place[b, s]], weight[b, s]
    return heavy, moved, kept


@compiled
def repeated(words: Integers) -> NDArray[np.bool_]:
    """(B, C) whether an equal state stands earlier in the row of (B, C, W)."""
    again, slots = np.empty(words.shape[:2], np.bool_), _slots(words.shape[1])
    last = np.uint64(len(slots) - 1)
    for b in range(words.shape[0]):
        row = words[b]
        slots[:] = -1
        for c in range(words.shape[1]):
            slot = _hash(row, c) & last
            while slots[slot] >= 0 and not _same(row, c, row, slots[slot]):
                slot = (slot + np.uint64(1)) & last
            again[b, c] = slots[slot] >= 0
            if not again[b, c]:
                slots[slot] = c
    return again


@compiled
def active(words: Integers) -> np.int64:
    """Return the number of active bits of all states (U, W)."""
    count = np.int64(0)
    for u in range(words.shape[0]):
        for w in range(words.shape[1]):
            count += np.int64(_ones(np.uint64(words[u, w])))
    return count


@compiled
def dense(words: Integers, table: Floats) -> None:
    """Fill (U, H) with the zeros and ones of states (U, W)."""
    for u in range(words.shape[0]):
        for w in range(words.shape[1]):
            word = np.uint64(words[u, w])
            for bit in range(min(64, table.shape[1] - 64 * w)):
                table[u, 64 * w + bit] = word >> np.uint64(bit) & np.uint64(1)


@compiled
def gather(rows: Floats, shift: Floats, words: Integers) -> Floats:
    """(U, K) the sum of the rows (H, K) at the active bits of each state (U, W), and the shift."""
    width = rows.shape[1]
    sums = np.empty((len(words), width), rows.dtype)
    for u in range(words.shape[0]):
        total = sums[u]
        for k in range(width):
            total[k] = shift[k]
        for w in range(words.shape[1]):
            left = np.uint64(words[u, w])
            while left:
                row = rows[64 * w + _lowest(left)]
                left &= left - np.uint64(1)
                for k in range(width):
                    total[k] += row[k]
    return sums


@compiled
def scatter(gradient: Floats, words: Integers, latent: int) -> Floats:
    """(H, K) the sum of the gradients (U, K) of the states (U, W) where each bit is active."""
    total = np.zeros((latent, gradient.shape[1]), gradient.dtype)
    for u in range(words.shape[0]):
        for w in range(words.shape[1]):
            left = np.uint64(words[u, w])
            while left:
                bit = 64 * w + _lowest(left)
                left &= left - np.uint64(1)
                for k in range(gradient.shape[1]):
                    total[bit, k] += gradient[u, k]
    return total


@compiled
def mean(place: Integers, weight: Floats, words: Integers, latent: int) -> Floats:
    """(B, H) for each bit the weights (B, S) of the states (U, W) at places (B, S) where it is
    active.
    """
    total = np.zeros((len(place), latent), weight.dtype)
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            for w in range(words.shape[1]):
                left = np.uint64(words[place[b, s], w])
                while left:
                    bit = 64 * w + _lowest(left)
                    left &= left - np.uint64(1)
                    total[b, bit] += weight[b, s]
    return total


@compiled
def squared_distance(x: Floats, seen: Floats, output: Floats, place: Integers) -> Floats:
    """(B, S) between the seen values of row b of x (B, D) and the output (U, D) of its s-th
    state.
    """
    distance = np.empty(place.shape, x.dtype)
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            u, total = place[b, s], x.dtype.type(0)
            for d in range(x.shape[1]):
                error = (x[b, d] - output[u, d]) * seen[b, d]
                total += error * error
            distance[b, s] = total
    return distance


@compiled
def pull(x: Floats, seen: Floats, output: Floats, place: Integers, weight: Floats) -> Floats:
    """(U, D) the gradient by the output of half the weighted sum of these distances; many weights
    are zero.
    """
    gradient = np.zeros_like(output)
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            u, pull = place[b, s], weight[b, s]
            if pull == 0:
                continue
            for d in range(x.shape[1]):
                gradient[u, d] += pull * (output[u, d] - x[b, d]) * seen[b, d]
    return gradient
