"""Permutations that are computed place by place, in memory that does not depend on their length.

A number below n is a pair of digits, each of about the square root of n. A Feistel network adds to
each digit in turn a keyed hash of the other, modulo its base, which can be undone. The pairs are a
few more than n: what falls outside goes through the network again until it falls inside (cycle
walking; Black and Rogaway 2002). Only integers are used, so all machines get the same result.
"""

import math

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]
ROUNDS, OF_FEW = 6, 32
"""Times that digits are changed, and for few numbers, whose permutations would not be equally
likely otherwise.
"""
FEW = 256

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
    """Return a key for each of some numbers, from one key: words of SplitMix64's sequence."""
    return mix_words(np.uint64(key % 2**64) + (numbers.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


class Permutations:
    """One permutation for each of some keys, of 0 to n - 1 for its own n.

    It depends on the key, on n, and on `longest`, which is little more than any n, and the largest
    of them unless it is given.
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
        """(rounds, keys) what is added to a digit before it is hashed."""

    def at(self, first: int, last: int) -> Numbers:
        """Return (last - first, keys): what the permutations have at these places.

        Behind its end a permutation has what it has at its last place.
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
        """Return where numbers go, each by the permutation of pairs that belongs to its key."""
        low = self.bases[1]
        digits = [numbers // low, numbers % low]
        for place, round_keys in enumerate(self.round_keys[:, keys]):
            changed, base = place % 2, self.bases[place % 2]
            hashed = mix_words(digits[1 - changed] + round_keys)
            total = digits[changed] + ((hashed >> _HALF) * base >> _HALF)
            digits[changed] = np.subtract(total, base, out=total, where=total >= base)
        found: Words = digits[0] * low + digits[1]
        return found
