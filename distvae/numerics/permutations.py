"""Keyed permutations that are computed place by place, in constant memory.

A number below n is written as a high and a low digit, whose bases are about the square root of n.
The rounds of a Feistel network alternately add a keyed hash of the low digit to the high digit, and
a keyed hash of the high digit to the low digit, modulo the base of the changed digit. Each round is
invertible. There are slightly more than n pairs of digits. A result of n or more goes through the
network again until it is below n (cycle walking; Black and Rogaway 2002). Only integers are used,
so all machines get the same result.
"""

import math

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]
ROUNDS, OF_FEW = 6, 32
"""Rounds of the network for long and for short permutations. Short permutations need more rounds to
be equally likely.
"""
FEW = 256
"""The length below which a permutation is short."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_HALF = np.uint64(32)


def mix_words(words: Words) -> Words:
    """Apply SplitMix64's finaliser, as `noise.mix` does to tensors."""
    words = words ^ (words >> np.uint64(30))
    words *= _MIX[0]
    words ^= words >> np.uint64(27)
    words *= _MIX[1]
    words ^= words >> np.uint64(31)
    return words


def derived_keys(key: int, numbers: Numbers) -> Words:
    """Derive a key for each number from one key, by SplitMix64's sequence."""
    return mix_words(np.uint64(key % 2**64) + (numbers.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


class Permutations:
    """A permutation of 0 to n - 1 for each key, with its own length n.

    A permutation depends on its key, on n, and on `longest`. `longest` is the largest n by default;
    it should not be much larger.
    """

    def __init__(self, keys: Words, lengths: Numbers, longest: int | None = None) -> None:
        self.lengths = lengths.astype(np.uint64)
        if longest is None:
            longest = int(lengths.max(initial=1))
        high = math.isqrt(longest - 1) + 1
        low = -(-longest // high)
        self.bases = np.uint64(high), np.uint64(low)
        rounds = OF_FEW if longest < FEW else ROUNDS
        counters = np.arange(1, rounds + 1, dtype=np.uint64)[:, None] * _GOLDEN
        self.round_keys = mix_words(keys + counters)
        """(rounds, keys) added to a digit before it is hashed."""

    def at(self, first: int, last: int) -> Numbers:
        """Return (last - first, keys) the values of the permutations at places `first` to
        `last` - 1. Beyond its end, a permutation repeats its last value.
        """
        places = np.arange(first, last, dtype=np.uint64)[:, None]
        found = self._encrypt(np.minimum(places, self.lengths - np.uint64(1)), slice(None))
        outside = (found >= self.lengths).nonzero()
        while len(outside[0]):
            found[outside] = self._encrypt(found[outside], outside[1])
            still = found[outside] >= self.lengths[outside[1]]
            outside = outside[0][still], outside[1][still]
        return found.astype(np.int64)

    def _encrypt(self, numbers: Words, keys: slice | NDArray[np.intp]) -> Words:
        """Map numbers by the Feistel networks of their keys."""
        low = self.bases[1]
        digits = [numbers // low, numbers % low]
        for place, round_keys in enumerate(self.round_keys[:, keys]):
            changed, base = place % 2, self.bases[place % 2]
            hashed = mix_words(digits[1 - changed] + round_keys)
            total = digits[changed] + ((hashed >> _HALF) * base >> _HALF)
            digits[changed] = np.subtract(total, base, out=total, where=total >= base)
        found: Words = digits[0] * low + digits[1]
        return found
