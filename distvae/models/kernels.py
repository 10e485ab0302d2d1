"""Loops over states that torch has no fast words for, compiled when first called.

`population` and `likelihoods` say the same in plain torch, for other devices and for machines without numba.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Machine code for the types of the first call, kept on disk; sums are taken in any order, so side by side."""
    made: Any = njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})(function)
    return cast(F, made)


@compiled
def _slot(words: Integers, first: Integers, slots: Integers, n: int) -> Any:
    """The slot of the n-th state in a table of known ones (open addressing), or the empty one where it belongs."""
    key = np.uint64(0)
    for w in range(words.shape[1]):
        key = (key ^ np.uint64(words[n, w])) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    slot = np.int64(key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & (len(slots) - 1)
    while slots[slot] >= 0:
        known, same = first[slots[slot]], True
        for w in range(words.shape[1]):
            same &= words[known, w] == words[n, w]
        if same:
            break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@compiled
def tabulate(words: Integers) -> tuple[Integers, Integers]:
    """Where each distinct one of the states (N, W) first stands, and (N,) which of these every state is."""
    size = 4
    while size < 2 * len(words):
        size *= 2
    slots = np.full(size, -1)
    first, place = np.empty(len(words), np.int64), np.empty(len(words), np.int64)
    count = 0
    for n in range(len(words)):
        slot = _slot(words, first, slots, n)
        if slots[slot] < 0:
            slots[slot], first[count] = count, n
            count += 1
        place[n] = slots[slot]
    return first[:count], place


@compiled
def heaviest(place: Integers, weight: Floats, count: int, least: float) -> tuple[Integers, Integers, Floats]:
    """Those of so many states whose weight exceeds the least in any row, in order; rows' places (B, S) among them."""
    moved, kept, used = np.zeros_like(place), np.zeros_like(weight), np.zeros(count, np.int64)
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            if weight[b, s] > least:
                used[place[b, s]] = 1
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
    again = np.ones(words.shape[:2], np.bool_)
    for row in range(len(words)):
        again[row][tabulate(words[row])[0]] = False
    return again


@compiled
def active(words: Integers) -> tuple[Integers, Integers]:
    """The places of the active bits of all states (U, W), state after state, and (U + 1,) where each state's begin."""
    start, bits = np.zeros(len(words) + 1, np.int64), np.empty(64 * words.size, np.int64)
    count = 0
    for u in range(len(words)):
        for w in range(words.shape[1]):
            word, bit = np.uint64(words[u, w]), 64 * w
            while word:
                while word & np.uint64(0xFF) == 0:
                    word, bit = word >> np.uint64(8), bit + 8
                if word & np.uint64(1):
                    bits[count] = bit
                    count += 1
                word, bit = word >> np.uint64(1), bit + 1
        start[u + 1] = count
    return bits[:count].copy(), start


@compiled
def gather(rows: Floats, shift: Floats, bits: Integers, start: Integers) -> Floats:
    """(U, K) the sum of the rows (H, K) at the bits of each state, and the shift."""
    sums = np.empty((len(start) - 1, rows.shape[1]), rows.dtype)
    for u in range(len(sums)):
        sums[u] = shift
        for i in range(start[u], start[u + 1]):
            bit = bits[i]
            for k in range(rows.shape[1]):
                sums[u, k] += rows[bit, k]
    return sums


@compiled
def scatter(gradient: Floats, bits: Integers, start: Integers, latent: int) -> Floats:
    """(H, K) the sum of the gradients (U, K) of the states where each bit is active."""
    total = np.zeros((latent, gradient.shape[1]), gradient.dtype)
    for u in range(len(gradient)):
        for i in range(start[u], start[u + 1]):
            bit = bits[i]
            for k in range(gradient.shape[1]):
                total[bit, k] += gradient[u, k]
    return total


@compiled
def mean(place: Integers, weight: Floats, bits: Integers, start: Integers, latent: int) -> Floats:
    """(B, H) for each bit the weights (B, S) of the states at places (B, S) where it is active."""
    total = np.zeros((len(place), latent), weight.dtype)
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            for i in range(start[place[b, s]], start[place[b, s] + 1]):
                total[b, bits[i]] += weight[b, s]
    return total


@compiled
def squared_distance(x: Floats, seen: Floats, output: Floats, place: Integers) -> Floats:
    """(B, S) between the seen values of row b of x (B, D) and the output (U, D) of its s-th state."""
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
    """(U, D) the gradient by the output of half the weighted sum of these distances; many weights are zero."""
    gradient = np.zeros_like(output)
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            u, pull = place[b, s], weight[b, s]
            if pull == 0:
                continue
            for d in range(x.shape[1]):
                gradient[u, d] += pull * (output[u, d] - x[b, d]) * seen[b, d]
    return gradient
