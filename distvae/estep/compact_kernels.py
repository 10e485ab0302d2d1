"""Compiled loops that encode states as lists of active bits, and decode them.

A state with few active bits takes one byte for their number, and two bytes for each place. Any
other state takes the byte `ALL_WORDS`, and eight bytes for each word.
"""

import numpy as np
from numpy.typing import NDArray

from distvae.models.compiling import compiled, inlined
from distvae.models.kernels import Integers, count_ones, lowest

Bytes = NDArray[np.uint8]
ALL_WORDS = 255


@compiled
def write_states(words: Integers, ends: Integers, written: Bytes) -> None:
    """Write the states of words (B, S, W), and fill `ends` (B,) with the end of each row."""
    width, at = words.shape[2], 0
    for b in range(words.shape[0]):
        for s in range(words.shape[1]):
            state = words[b, s]
            active = 0
            for w in range(width):
                active += int(count_ones(np.uint64(state[w])))
            if active < min(4 * width, ALL_WORDS):
                written[at] = active
                at = write_places(state, written, at + 1)
            else:
                written[at] = ALL_WORDS
                at = write_words(state, written, at + 1)
        ends[b] = at


@inlined
def write_places(state: Integers, written: Bytes, at: int) -> int:
    """Write the places of a state's active bits, and return the end position."""
    for w in range(len(state)):
        left = np.uint64(state[w])
        while left:
            place = 64 * w + lowest(left)
            left &= left - np.uint64(1)
            written[at], written[at + 1] = place & 255, place >> 8
            at += 2
    return at


@inlined
def write_words(state: Integers, written: Bytes, at: int) -> int:
    """Write the words of a state in little-endian order, and return the end position."""
    for w in range(len(state)):
        for byte in range(8):
            written[at] = np.uint64(state[w]) >> np.uint64(8 * byte) & np.uint64(255)
            at += 1
    return at


@compiled
def read_states(written: Bytes, words: Integers) -> None:
    """Fill words (B, S, W) with the states that `write_states` wrote."""
    words[:] = 0
    at = 0
    for b in range(words.shape[0]):
        for s in range(words.shape[1]):
            count = written[at]
            at += 1
            if count == ALL_WORDS:
                for w in range(words.shape[2]):
                    for byte in range(8):
                        words[b, s, w] |= np.int64(written[at]) << (8 * byte)
                        at += 1
                continue
            for _ in range(count):
                place = np.int64(written[at]) | np.int64(written[at + 1]) << 8
                words[b, s, place >> 6] |= np.int64(1) << (place & 63)
                at += 2
