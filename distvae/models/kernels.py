"""Loops over states that have no fast equivalent in torch. Numba compiles them on the first call.

`population` and `likelihoods` have equivalents in plain torch, for other devices and for machines
without numba.
"""

import numpy as np
from numpy.typing import NDArray

from distvae.models.compiling import compiled, inlined
from distvae.numerics.array_types import Floats

Integers = NDArray[np.int64]
Slots = NDArray[np.int32]


@inlined
def count_ones(word: np.uint64) -> np.uint64:
    """Return the number of active bits of a word."""
    word = word - (word >> np.uint64(1) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (
        word >> np.uint64(2) & np.uint64(0x3333333333333333)
    )
    word = word + (word >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return word * np.uint64(0x0101010101010101) >> np.uint64(56)


@inlined
def lowest(word: np.uint64) -> np.int64:
    """Return the place of the lowest active bit."""
    return np.int64(count_ones((word & (~word + np.uint64(1))) - np.uint64(1)))


@inlined
def hash_state(words: Integers, n: int) -> np.uint64:
    """Return a hash of the n-th state."""
    key = np.uint64(0)
    for w in range(words.shape[1]):
        key = (key ^ np.uint64(words[n, w])) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)


@inlined
def same_state(words: Integers, n: int, known: Integers, place: int) -> bool:
    """Return whether the n-th state equals the known state at a place."""
    same = True
    for w in range(words.shape[1]):
        same &= words[n, w] == known[place, w]
    return same


@compiled
def empty_slots(count: int) -> Slots:
    """Return an empty hash table for `count` states, at most half full."""
    size = 4
    while size < 2 * count:
        size *= 2
    return np.full(size, -1, np.int32)


@compiled
def repeated(words: Integers) -> NDArray[np.bool_]:
    """Return for each state of words (B, C, W) whether an equal state is earlier in its row."""
    again, slots = np.empty(words.shape[:2], np.bool_), empty_slots(words.shape[1])
    last = np.uint64(len(slots) - 1)
    for b in range(words.shape[0]):
        row = words[b]
        slots[:] = -1
        for c in range(words.shape[1]):
            slot = hash_state(row, c) & last
            while slots[slot] >= 0 and not same_state(row, c, row, slots[slot]):
                slot = (slot + np.uint64(1)) & last
            again[b, c] = slots[slot] >= 0
            if not again[b, c]:
                slots[slot] = c
    return again


@compiled
def dense(words: Integers, table: Floats) -> None:
    """Unpack states (U, W) into zeros and ones (U, H)."""
    for u in range(words.shape[0]):
        for w in range(words.shape[1]):
            word = np.uint64(words[u, w])
            for bit in range(min(64, table.shape[1] - 64 * w)):
                table[u, 64 * w + bit] = word >> np.uint64(bit) & np.uint64(1)


@compiled
def mean(place: Integers, weight: Floats, words: Integers, latent: int) -> Floats:
    """Return the weighted sum (B, H) of the states at places (B, S) of the table (U, W)."""
    total = np.zeros((len(place), latent), weight.dtype)
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            for w in range(words.shape[1]):
                left = np.uint64(words[place[b, s], w])
                while left:
                    bit = 64 * w + lowest(left)
                    left &= left - np.uint64(1)
                    total[b, bit] += weight[b, s]
    return total


@compiled
def gaussian_densities(
    x: Floats, observed: Floats, output: Floats, place: Integers, scale: float, shift: float
) -> Floats:
    """Return (B, S): `scale` times the squared distance of each row to the output (U, D) of its
    states, plus `shift` for each observed value.

    If `observed` is empty, all values were observed. States with place -1 are skipped.
    """
    density = np.empty(place.shape, x.dtype)
    masked = len(observed) > 0
    for b in range(place.shape[0]):
        values = float(x.shape[1])
        if masked:
            values = 0.0
            for d in range(x.shape[1]):
                values += observed[b, d]
        for s in range(place.shape[1]):
            u, total = place[b, s], x.dtype.type(0)
            if u < 0:
                continue
            if masked:
                for d in range(x.shape[1]):
                    error = (x[b, d] - output[u, d]) * observed[b, d]
                    total += error * error
            else:
                for d in range(x.shape[1]):
                    error = x[b, d] - output[u, d]
                    total += error * error
            density[b, s] = scale * total + shift * values
    return density


@compiled
def bernoulli_densities(
    x: Floats, observed: Floats, output: Floats, log_none: Floats, place: Integers
) -> Floats:
    """Return (B, S): the sum over values of x times the logit (U, D) plus log p(0) (U, D).

    If `observed` is empty, all values were observed. States with place -1 are skipped.
    """
    density = np.empty(place.shape, x.dtype)
    masked = len(observed) > 0
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            u, total = place[b, s], x.dtype.type(0)
            if u < 0:
                continue
            if masked:
                for d in range(x.shape[1]):
                    total += (x[b, d] * output[u, d] + log_none[u, d]) * observed[b, d]
            else:
                for d in range(x.shape[1]):
                    total += x[b, d] * output[u, d] + log_none[u, d]
            density[b, s] = total
    return density
