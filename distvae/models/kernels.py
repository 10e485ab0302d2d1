"""Loops over binary states that have no fast equivalent in torch.

Numba compiles a loop on its first call, and the user is told about the wait. Only tensors on the
CPU are looped over; `population` and `likelihoods` have equivalents in torch for a GPU.

The loops build a table of the distinct states of a batch, decode it, compare rows with the output
for their states, and compute gradients. `part` is `LEFT_OUT`, `NEAR` or `SAMPLED` for each state of
a row (see `population`).
"""

import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numba.core import event
from numpy.typing import NDArray

from distvae.models.population import LEFT_OUT, SAMPLED
from distvae.numerics.arrays import Floats

F = TypeVar("F", bound=Callable[..., object])
Integers = NDArray[np.int64]
Slots = NDArray[np.int32]
Parts = NDArray[np.uint8]
BOUND, SAMPLED_WEIGHT, DENSITY, VALUES = range(4)
FIGURES = 4
"""The number of scalar sums over rows, which come before the vectors."""


def compiled(function: F) -> F:
    """Compile a function for the types of its first call, and keep the machine code on disk.

    Division by zero gives infinity. Sums may be reordered, so that they can be vectorised.
    """
    options: Any = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
    try:
        return cast(F, njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # neither this package nor the user's cache can be written into
        return cast(F, njit(nogil=True, **options)(function))


def inlined(function: F) -> F:
    """Compile a function inline into its callers."""
    return cast(F, njit(inline="always", error_model="numpy")(function))


class _Compilation(event.Listener):
    """Prints one line when the first loop of this package is compiled."""

    said = False

    def on_start(self, event: event.Event) -> None:
        """Print a line when the first compilation begins."""
        function = event.data["dispatcher"].py_func
        if self.said or not function.__module__.startswith("distvae."):
            return
        self.said = True
        print(
            "distvae: compiling loops for this processor; it takes some 20 seconds, once",
            file=sys.stderr,
            flush=True,
        )

    def on_end(self, event: event.Event) -> None:
        """Do nothing."""


_listen: Callable[[str, event.Listener], None] = event.register
_listen("numba:compile", _Compilation())


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
