"""Compiled loops that build a table of distinct states, decode it, and compute its gradient.

`part` is `LEFT_OUT`, `NEAR` or `SAMPLED` for each state of a row (see `truncated`).
"""

import math

import numpy as np
from numpy.typing import NDArray

from distvae.models.compiling import compiled, inlined
from distvae.models.kernels import (
    Integers,
    Slots,
    count_ones,
    hash_state,
    lowest,
    same_state,
)
from distvae.models.truncated import LEFT_OUT, SAMPLED
from distvae.numerics.array_types import Floats

Parts = NDArray[np.uint8]
BOUND, SAMPLED_WEIGHT, DENSITY, VALUES = range(4)
FIGURES = 4
"""The number of scalar sums over rows, which come before the vectors."""


@compiled
def fill_table(
    words: Integers, part: Parts, slots: Slots, known: Integers, place: Integers
) -> tuple[int, int]:
    """Fill the table `known` with the distinct states of words (B, S, W), and `place` (B, S) with
    the place of each state in the table.

    The place of a left-out state is -1. Slots must be empty. Return the number of distinct states,
    and the number of their active bits.
    """
    count, active, last = 0, 0, np.uint64(len(slots) - 1)
    for b in range(words.shape[0]):
        row = words[b]
        for s in range(words.shape[1]):
            if part[b, s] == LEFT_OUT:
                place[b, s] = -1
                continue
            slot = hash_state(row, s) & last
            while slots[slot] >= 0 and not same_state(row, s, known, slots[slot]):
                slot = (slot + np.uint64(1)) & last
            if slots[slot] < 0:
                slots[slot] = count
                for w in range(words.shape[2]):
                    known[count, w] = row[s, w]
                    active += int(count_ones(np.uint64(row[s, w])))
                count += 1
            place[b, s] = slots[slot]
    return count, active


@compiled
def add_rows(rows: Floats, shift: Floats, slope: float, words: Integers, total: Floats) -> None:
    """Fill `total` (U, K) with `shift` plus the `rows` (H, K) at active bits, and then apply a
    rectifier with a slope for negative values.
    """
    width, factor = rows.shape[1], rows.dtype.type(slope)
    for u in range(words.shape[0]):
        out = total[u]
        for k in range(width):
            out[k] = shift[k]
        for w in range(words.shape[1]):
            left = np.uint64(words[u, w])
            while left:
                row = rows[64 * w + lowest(left)]
                left &= left - np.uint64(1)
                for k in range(width):
                    out[k] += row[k]
        for k in range(width):
            out[k] = max(out[k], factor * out[k])


@compiled
def add_odds(odds: Floats, none: float, words: Integers, total: Floats) -> None:
    """Fill `total` (U,) with log p(z): `none` = log p(0), plus the log-odds (H,) at active bits."""
    for u in range(words.shape[0]):
        out = none
        for w in range(words.shape[1]):
            left = np.uint64(words[u, w])
            while left:
                out += odds[64 * w + lowest(left)]
                left &= left - np.uint64(1)
        total[u] = out


@compiled
def add_prior(prior: Floats, place: Integers, density: Floats) -> None:
    """Add the log-prior (U,) of each state to log-densities (B, S), in place."""
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            density[b, s] += prior[place[b, s]]


@inlined
def add_active(words: Integers, place: int, q: float, active: Floats) -> float:
    """Add a state's weight to each of its active bits; return the sum of the additions."""
    added = 0.0
    for w in range(words.shape[1]):
        left = np.uint64(words[place, w])
        while left:
            active[64 * w + lowest(left)] += q
            added += q
            left &= left - np.uint64(1)
    return added


@compiled
def weigh(
    density: Floats,
    prior: Floats,
    states: tuple[Integers, Parts, Integers],
    weight: Floats,
    sums: Floats,
) -> None:
    """Fill the weights (B, S) of states, given log p(x | z) (B, S) and log p(z) (U,).

    `states` has the places (B, S), the parts (B, S), and the words (U, W) of the table.

    `sums` begins with `FIGURES` scalars. Three scalars are set to sums over rows: the bound, the
    weight of states with part `SAMPLED`, and the expected log-density. The next H entries are
    increased by the expected activity of each bit, and the last H + 1 entries by the number of rows
    with 0 to H active bits.
    """
    place, part, words = states
    bits_in_state = (len(sums) - FIGURES) // 2
    active, counts = sums[FIGURES : FIGURES + bits_in_state], sums[FIGURES + bits_in_state :]
    bound, expected, sampled = 0.0, 0.0, 0.0
    for b in range(place.shape[0]):
        best = -np.inf
        for s in range(place.shape[1]):
            if place[b, s] >= 0:
                weight[b, s] = density[b, s] + prior[place[b, s]]
                best = max(best, weight[b, s])
        total = 0.0
        for s in range(place.shape[1]):
            if place[b, s] >= 0:
                weight[b, s] = math.exp(weight[b, s] - best)
                total += weight[b, s]
            else:
                weight[b, s] = 0
        bound += best + math.log(total)
        of_row = 0.0
        for s in range(place.shape[1]):
            q = weight[b, s] / total
            weight[b, s] = q
            if place[b, s] < 0:
                continue
            expected += q * density[b, s]
            if part[b, s] == SAMPLED:
                sampled += q
            of_row += add_active(words, place[b, s], q, active)
        bits = 0  # also for a diverged row, whose weights are NaN
        if of_row > 0:
            bits = min(int(of_row + 0.5), len(active))
        counts[bits] += 1
    sums[BOUND], sums[SAMPLED_WEIGHT], sums[DENSITY] = bound, sampled, expected


@compiled
def number_heavy(
    place: Integers, weight: Floats, least: float, number: Integers, heavy: Integers
) -> int:
    """Number the states of the table that weigh more than `least` in any row, from 1.

    Fill `number` (U,), which is 0 for all other states, and `heavy` with the places of the numbered
    states. Set weights up to `least` to zero. Return the number of numbered states.
    """
    number[:] = 0
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            if weight[b, s] > least:
                number[place[b, s]] = 1
            else:
                weight[b, s] = 0
    count = 0
    for u in range(len(number)):
        if number[u]:
            heavy[count] = u
            count += 1
            number[u] = count
    return count


@compiled
def add_errors(
    values: tuple[Floats, Floats, Floats],
    states: tuple[Integers, Floats, Integers],
    scale: float,
    total: Floats,
) -> None:
    """Add to `total` (N, D) the weighted errors of the means (N, D) of heavy states.

    `values` has x, a mask of observed values (empty if all values were observed), and the means.
    `states` has the places and weights (B, S), and the numbers (U,) of `number_heavy`.
    """
    (x, observed, mean), (place, weight, number) = values, states
    masked = len(observed) > 0
    for b in range(place.shape[0]):
        for s in range(place.shape[1]):
            if weight[b, s] == 0:
                continue
            n, factor = number[place[b, s]] - 1, x.dtype.type(scale * weight[b, s])
            if masked:
                for d in range(x.shape[1]):
                    total[n, d] += factor * (mean[n, d] - x[b, d]) * observed[b, d]
            else:
                for d in range(x.shape[1]):
                    total[n, d] += factor * (mean[n, d] - x[b, d])


@compiled
def scale_negative(slope: float, value: Floats, gradient: Floats) -> None:
    """Multiply gradients (N, K) by a slope where a rectifier's value is not positive."""
    factor, one = value.dtype.type(slope), value.dtype.type(1)
    for n in range(gradient.shape[0]):
        for k in range(gradient.shape[1]):
            gradient[n, k] *= one if value[n, k] > 0 else factor


@compiled
def scatter_rows(gradient: Floats, words: Integers, total: Floats) -> None:
    """Fill `total` (H, K): for each bit, the sum of the gradients (N, K) of the states (N, W) in
    which the bit is active.
    """
    total[:] = 0
    width = gradient.shape[1]
    for n in range(words.shape[0]):
        row = gradient[n]
        for w in range(words.shape[1]):
            left = np.uint64(words[n, w])
            while left:
                out = total[64 * w + lowest(left)]
                left &= left - np.uint64(1)
                for k in range(width):
                    out[k] += row[k]
