"""Compiled loops of the evolutionary search on the CPU (children of the fittest states, and
survivors), and of populations stored as lists of active bits.

`search` has equivalents in torch for a GPU.
"""

import numpy as np
from numpy.typing import NDArray

from distvae.models.kernels import (
    Integers,
    Slots,
    compiled,
    count_ones,
    hash_state,
    inlined,
    lowest,
    same_state,
)
from distvae.numerics.arrays import Floats

Bytes = NDArray[np.uint8]
RARELY = 1 / 32
"""The probability that a parent is drawn in proportion to its fitness; otherwise the best state is
the parent (`search.RELEASE_BATCH`).
"""
ALL_WORDS = 255
"""The first byte of a state that is stored as eight bytes for each word. Any other state has few
active bits: it takes one byte for their number, and two bytes for the place of each active bit.
"""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inlined
def mix(z: np.uint64) -> np.uint64:
    """Apply SplitMix64's finaliser, as `numerics.noise.mix` does."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inlined
def unit(word: np.uint64) -> np.float32:
    """Return a uniform number in (0, 1) from the high bits of a random word, as `noise.unit`."""
    return (np.float32(np.int32(word >> np.uint64(41))) + np.float32(0.5)) * np.float32(2.0**-23)


@compiled
def nearly_best(value: Floats, seeds: Integers, stage: int, parents: Integers) -> None:
    """Fill `parents` (B, P) with places of parents, selected by `fitness_batch` (`search`)."""
    states, count = value.shape[1], parents.shape[1]
    ladder = np.empty(states, value.dtype)
    for b in range(value.shape[0]):
        fitness = value[b]
        best, lowest = 0, fitness[0]
        for s in range(1, states):
            if fitness[s] > fitness[best]:
                best = s
            lowest = min(lowest, fitness[s])
        start = mix(np.uint64(seeds[b]))
        first = np.uint64(stage * 2 * count + 1)
        has_ladder = False
        for p in range(count):
            parents[b, p] = best
            chance = unit(mix(start + (first + np.uint64(count + p)) * GOLDEN))
            if chance >= np.float32(RARELY):
                continue
            if not has_ladder:
                spread = fitness[best] - lowest
                floor = value.dtype.type(1e-6) * (value.dtype.type(1) + spread)
                total = 0.0
                for s in range(states):
                    total += np.float64((fitness[s] - lowest) + floor)
                    ladder[s] = total
                has_ladder = True
            drawn = unit(mix(start + (first + np.uint64(p)) * GOLDEN)) * ladder[-1]
            place = 0
            while place < states - 1 and ladder[place] < drawn:
                place += 1
            parents[b, p] = place


@compiled
def flip_children(
    words: Integers,
    parents: Integers,
    seeds: Integers,
    stage: int,
    latent: int,
    children: Integers,
) -> None:
    """Fill `children` (B, P * C, W): copies of the parents (B, P) with one flipped bit each.

    Siblings have different flipped bits, which are the same bits as in `search.flipped`.
    """
    count = parents.shape[1]
    siblings = children.shape[1] // count
    bits = np.empty(siblings, np.int64)
    for b in range(parents.shape[0]):
        start = mix(np.uint64(seeds[b]))
        for p in range(count):
            first = (stage * count + p) * siblings + 1
            for c in range(siblings):
                word = mix(start + np.uint64(first + c) * GOLDEN)
                last = latent - siblings + c
                half = (word >> np.uint64(1)) & np.uint64((1 << 62) - 1)
                bit = np.int64(half % np.uint64(last + 1))
                for earlier in range(c):
                    if bits[earlier] == bit:
                        bit = last
                        break
                bits[c] = bit
                child = children[b, p * siblings + c]
                for w in range(words.shape[2]):
                    child[w] = words[b, parents[b, p], w]
                child[bit >> 6] ^= np.int64(1) << (bit & 63)


@compiled
def survivors(
    words: Integers,
    value: Floats,
    new: Integers,
    new_value: Floats,
    better: Integers,
    gap: Floats,
) -> int:
    """Fill `better` (B, S, W) with the best distinct states among the kept (B, S, W) and the new
    states (B, C, W). Fill `gap` (B, S) with the row's best value minus each state's value.

    Of equal states, and of states with equal values, the first survives. Return the number of new
    survivors. `better` may share the memory of the kept states.
    """
    kept, count = words.shape[1], words.shape[1] + new.shape[1]
    size = 4  # at most half full
    while size < 2 * count:
        size *= 2
    slots = np.empty(size, np.int32)
    replaced = 0
    row, score = np.empty((count, words.shape[2]), np.int64), np.empty(count, value.dtype)
    distinct, heap = np.empty(count, np.int64), np.empty(kept, value.dtype)
    for b in range(words.shape[0]):
        for c in range(count):
            source, place = (words, c) if c < kept else (new, c - kept)
            for w in range(words.shape[2]):
                row[c, w] = source[b, place, w]
            found = value[b, c] if c < kept else new_value[b, c - kept]
            score[c] = found if found == found else -np.inf  # NaN in a diverged row
        among = list_distinct(row, slots, distinct)
        threshold = nth_highest(score, distinct, among, heap)
        ties, best = kept, -np.inf
        for i in range(among):
            ties -= score[distinct[i]] > threshold
            best = max(best, score[distinct[i]])
        s = 0
        for i in range(among):
            c = distinct[i]
            if score[c] < threshold or (score[c] == threshold and ties == 0):
                continue
            ties -= score[c] == threshold
            replaced += c >= kept
            gap[b, s] = best - score[c]
            for w in range(words.shape[2]):
                better[b, s, w] = row[c, w]
            s += 1
    return replaced


@inlined
def list_distinct(row: Integers, slots: Slots, distinct: Integers) -> int:
    """Fill `distinct` with the first place of each distinct state (C, W); return their number."""
    last, among = np.uint64(len(slots) - 1), 0
    slots[:] = -1
    for c in range(row.shape[0]):
        slot = hash_state(row, c) & last
        while slots[slot] >= 0 and not same_state(row, c, row, slots[slot]):
            slot = (slot + np.uint64(1)) & last
        if slots[slot] < 0:
            slots[slot] = c
            distinct[among] = c
            among += 1
    return among


@inlined
def nth_highest(score: Floats, distinct: Integers, among: int, heap: Floats) -> float:
    """Return the n-th highest score at the distinct places, where n is the size of the heap."""
    size = len(heap)
    for i in range(size):  # sift up: the lowest score is on top
        child = i
        heap[child] = score[distinct[i]]
        while child > 0 and heap[(child - 1) // 2] > heap[child]:
            parent = (child - 1) // 2
            heap[child], heap[parent] = heap[parent], heap[child]
            child = parent
    for i in range(size, among):
        found = score[distinct[i]]
        if found <= heap[0]:
            continue
        parent, child = 0, 1
        while child < size:  # sift down
            if child + 1 < size and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= found:
                break
            heap[parent] = heap[child]
            parent, child = child, 2 * child + 1
        heap[parent] = found
    return float(heap[0])


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
            has_places = active < min(4 * width, ALL_WORDS)
            written[at] = active if has_places else ALL_WORDS
            at += 1
            for w in range(width):
                left = np.uint64(state[w])
                if has_places:
                    while left:
                        place = 64 * w + lowest(left)
                        left &= left - np.uint64(1)
                        written[at], written[at + 1] = place & 255, place >> 8
                        at += 2
                else:
                    for byte in range(8):
                        written[at] = left >> np.uint64(8 * byte) & np.uint64(255)
                        at += 1
        ends[b] = at


@compiled
def read_states(written: Bytes, words: Integers) -> bool:
    """Fill words (B, S, W) with the states that `write_states` wrote. Return whether the bytes are
    those of as many states of this size.
    """
    words[:] = 0
    at, width = 0, words.shape[2]
    for b in range(words.shape[0]):
        for s in range(words.shape[1]):
            if at >= len(written):
                return False
            count = written[at]
            at += 1
            end = at + (8 * width if count == ALL_WORDS else 2 * np.int64(count))
            if end > len(written):
                return False
            if count == ALL_WORDS:
                for w in range(width):
                    for byte in range(8):
                        words[b, s, w] |= np.int64(written[at]) << (8 * byte)
                        at += 1
                continue
            for _ in range(count):
                place = np.int64(written[at]) | np.int64(written[at + 1]) << 8
                if place >= 64 * width:
                    return False
                words[b, s, place >> 6] |= np.int64(1) << (place & 63)
                at += 2
    return at == len(written)
