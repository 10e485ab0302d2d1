"""Shard rows among workers and shuffle them, so that no order depends on the number of workers.

Up to `LISTED` rows are divided into lanes (strided shards): row r belongs to lane r % L. Lanes are
divided among workers: worker l % size holds lane l, with the populations of its rows. Every batch
takes the same number of rows from each lane, except at the end of an epoch. The workers are
therefore equally busy, and each row stays with its worker from epoch to epoch.

Larger datasets are divided into bands (shards of consecutive rows). Each worker holds consecutive
bands, so it reads one range of the data. The number of bands equals the batch size, and each batch
takes one row from each band. The order within a band is a keyed permutation. A worker computes the
permutation only for its own bands and only for the next batches, so no order is stored.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distvae.numerics.noise import GOLDEN, MIX, order, order_key

RowNumbers = NDArray[np.int64]
"""Row numbers in a dataset."""
Words = NDArray[np.uint64]
MAX_LANES = 64
LISTED = 2**20
"""The largest dataset whose order is stored as a list. At this size the list costs each worker
0.09 s an epoch and 18 MB; both grow with the size of the dataset.
"""
COMPUTED = 8192
"""Rows of a worker that are permuted together (at least one batch): enough rows to make NumPy's
overhead small, and few enough for the processor's cache.
"""
ROUNDS, ROUNDS_OF_SHORT, SHORT = 6, 32, 256
"""Rounds of a permutation's network, and the rounds for lengths below `SHORT`, which need more
rounds until all permutations are equally likely.
"""


def divide(rows: int, batch: int) -> "Lanes":
    """Divide rows into lanes, or into bands if there are more than `LISTED` rows."""
    if rows > LISTED:
        return Bands(rows, min(batch, rows))
    return Lanes.of(rows, batch)


def share_of(lanes: "Lanes", batch: int, rank: int, size: int, keeps: bool) -> "Share":
    """Return a worker's share of every batch.

    Rows stay with one worker if it keeps state for them, or if they are divided into bands.
    """
    if keeps or isinstance(lanes, Bands):
        return lanes.held(rank, size)
    return FreeRows(lanes.rows, batch, rank, size)


Order = Callable[[int, int], RowNumbers]
"""The order of rows in an epoch, as one worker sees it: a function that returns the worker's rows
among places `first` to `last` - 1.
"""


@dataclass(frozen=True)
class FreeRows:
    """One worker's share of batches whose rows no worker holds: every `size`-th row of a batch."""

    count: int
    batch: int
    rank: int
    size: int

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch."""
        whole = order(seed, epoch, self.count)
        return lambda first, last: self.select(whole[first:last], first)

    def select(self, rows: RowNumbers, first: int = 0) -> RowNumbers:
        """Return the worker's share of rows that begin at place `first` of an epoch's order."""
        if self.size == 1:
            return rows
        places = np.arange(first, first + len(rows))
        return np.asarray(rows[places % self.batch % self.size == self.rank])


@dataclass(frozen=True)
class Lanes:
    """Rows 0 to N - 1, divided into lanes."""

    rows: int
    count: int
    """Number of lanes."""

    @classmethod
    def of(cls, rows: int, batch: int) -> "Lanes":
        """Divide rows into gcd(batch, 64) lanes, so that each batch is divided evenly."""
        return cls(rows, math.gcd(batch, MAX_LANES))

    def schedule(self, seed: int, epoch: int) -> RowNumbers:
        """Return all rows in the order of an epoch, one row from each lane in turn."""
        depth = -(-self.rows // self.count)
        table = np.full((depth, self.count), -1)
        for lane in range(self.count):
            rows = np.arange(lane, self.rows, self.count)
            table[: len(rows), lane] = rows[order(seed, epoch, len(rows), lane)]
        return table[table >= 0]

    @property
    def first(self) -> range:
        """The rows of the first lane, which worker 0 holds, whatever the number of workers."""
        return range(0, self.rows, self.count)

    def held(self, rank: int = 0, size: int = 1) -> "HeldRows":
        """Return the rows of worker `rank` of `size`."""
        return HeldRows(self, rank, size)


@dataclass(frozen=True)
class HeldRows:
    """The rows of one worker, in ascending order."""

    lanes: Lanes
    rank: int
    size: int

    def __len__(self) -> int:
        whole, rest = divmod(self.lanes.rows, self.lanes.count)
        return whole * len(self._held_lanes) + len(range(self.rank, rest, self.size))

    @property
    def _held_lanes(self) -> range:
        return range(self.rank, self.lanes.count, self.size)

    def part(self, places: slice) -> RowNumbers:
        """Return a slice of the rows that are held."""
        chosen = range(len(self))[places]
        numbers = np.arange(chosen.start, chosen.stop, chosen.step)
        turns, lanes = np.divmod(numbers, max(len(self._held_lanes), 1))
        return np.asarray(turns * self.lanes.count + lanes * self.size + self.rank)

    def contains(self, rows: RowNumbers) -> NDArray[np.bool_]:
        """Return for each row whether it is held."""
        return np.asarray(rows % self.lanes.count % self.size == self.rank)

    def select(self, rows: RowNumbers) -> RowNumbers:
        """Return the rows that are held."""
        return rows if self.size == 1 else rows[self.contains(rows)]

    def index(self, rows: Tensor) -> Tensor:
        """Return the position of each row among all rows that are held."""
        if self.size == 1:
            return rows
        lane = rows.remainder(self.lanes.count)
        turn = rows.div(self.lanes.count, rounding_mode="floor")
        place = (lane - self.rank).div(self.size, rounding_mode="floor")
        return turn * len(self._held_lanes) + place

    def overlaps(self, other: "HeldRows") -> bool:
        """Return whether another holder may have some of the same rows."""
        if self.lanes != other.lanes:
            return True
        return not set(self._held_lanes).isdisjoint(other._held_lanes)

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch, in which every batch has equally many rows per lane."""
        whole = self.lanes.schedule(seed, epoch)
        return lambda first, last: self.select(whole[first:last])


Share = HeldRows | FreeRows
"""One worker's share of every batch."""


class Bands(Lanes):
    """Rows 0 to N - 1, divided into bands of consecutive rows.

    If N is not a multiple of the number of bands, the first bands have one row more.
    """

    def schedule(self, seed: int, epoch: int) -> RowNumbers:
        """Return all rows in the order of an epoch, one row from each band in turn."""
        return self.held().order(seed, epoch)(0, self.rows)

    @property
    def first(self) -> range:
        """The rows of the first band."""
        return range(self.start(1))

    def held(self, rank: int = 0, size: int = 1) -> "HeldBands":
        """Return the rows of worker `rank` of `size`, which holds consecutive bands."""
        return HeldBands(self, rank, size)

    def start(self, band: int) -> int:
        """Return the first row of a band."""
        length, longer = divmod(self.rows, self.count)
        return band * length + min(band, longer)


@dataclass(frozen=True)
class HeldBands(HeldRows):
    """The rows of one worker: one range of consecutive rows."""

    lanes: Bands

    @cached_property
    def bands(self) -> range:
        """The bands of this worker."""
        count = self.lanes.count
        return range(-(-self.rank * count // self.size), -(-(self.rank + 1) * count // self.size))

    @cached_property
    def numbers(self) -> range:
        """The rows of this worker."""
        return range(self.lanes.start(self.bands.start), self.lanes.start(self.bands.stop))

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, places: slice) -> RowNumbers:
        """Return a slice of the rows that are held."""
        rows = self.numbers[places]
        return np.arange(rows.start, rows.stop, rows.step)

    def contains(self, rows: RowNumbers) -> NDArray[np.bool_]:
        """Return for each row whether it is held."""
        return np.asarray((rows >= self.numbers.start) & (rows < self.numbers.stop))

    def index(self, rows: Tensor) -> Tensor:
        """Return the position of each row among all rows that are held."""
        return rows - self.numbers.start if self.numbers.start else rows

    def overlaps(self, other: HeldRows) -> bool:
        """Return whether another holder may have some of the same rows."""
        if not isinstance(other, HeldBands):
            return True
        one, another = self.numbers, other.numbers
        return max(one.start, another.start) < min(one.stop, another.stop)

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch, in which every batch has one row from each band."""
        return KeyedOrder(self, order_key(seed, epoch))


class KeyedOrder:
    """The rows of one worker in the order of an epoch, computed place by place.

    A turn takes one row from each band; the last turn may lack the last bands.
    """

    def __init__(self, held: HeldBands, key: int) -> None:
        lanes, bands = held.lanes, held.bands
        self.held = held
        self.starts = np.array([lanes.start(band) for band in (*bands, bands.stop)])
        keys = derived_keys(key, np.arange(bands.start, bands.stop))
        longest = -(-lanes.rows // lanes.count)
        self.permutations = Permutations(keys, np.diff(self.starts), longest)
        self.turns = max(COMPUTED // max(len(bands), 1), 1)
        """The number of turns that are computed together."""
        self.computed: tuple[int, RowNumbers] = -1, np.empty(0, np.int64)
        """The number and the rows of the last group of turns that was computed."""

    def __call__(self, first: int, last: int) -> RowNumbers:
        """Return this worker's rows among places `first` to `last` - 1 of the epoch's order."""
        start, stop = self._held_before(first), self._held_before(min(last, self.held.lanes.rows))
        together = self.turns * len(self.held.bands)
        parts = [np.empty(0, np.int64)]
        while start < stop:
            group, place = divmod(start, together)
            end = min(stop - start + place, together)
            if self.computed[0] != group:
                turn = group * self.turns
                rows = self.permutations.at(turn, turn + self.turns) + self.starts[:-1]
                self.computed = group, rows.ravel()
            parts.append(self.computed[1][place:end])
            start += end - place
        return parts[-1] if len(parts) == 2 else np.concatenate(parts)

    def _held_before(self, place: int) -> int:
        """Return the number of this worker's rows before a place in the epoch's order."""
        turn, band = divmod(place, self.held.lanes.count)
        bands = self.held.bands
        return turn * len(bands) + min(max(band - bands.start, 0), len(bands))


def mix_words(words: Words) -> Words:
    """Apply SplitMix64's finaliser, as `noise.mix` does to tensors."""
    words = words ^ (words >> np.uint64(30))
    words *= np.uint64(MIX[0] % 2**64)
    words ^= words >> np.uint64(27)
    words *= np.uint64(MIX[1] % 2**64)
    words ^= words >> np.uint64(31)
    return words


def derived_keys(key: int, numbers: RowNumbers) -> Words:
    """Derive a key for each number from one key, by SplitMix64's sequence."""
    counters = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN % 2**64)
    return mix_words(np.uint64(key % 2**64) + counters)


class Permutations:
    """A permutation of 0 to n - 1 for each key, with its own length n, in constant memory.

    A number below n is written as a high and a low digit, whose bases are about the square root of
    n. The rounds of a Feistel network alternately add a keyed hash of the low digit to the high
    digit, and a keyed hash of the high digit to the low digit, modulo the base of the changed
    digit. Each round is invertible. There are slightly more than n pairs of digits. A result of n
    or more goes through the network again until it is below n (cycle walking; Black and Rogaway
    2002). Only integers are used, so all machines get the same result.

    A permutation depends on its key, on n, and on `longest`. `longest` is the largest n by default;
    it should not be much larger.
    """

    def __init__(self, keys: Words, lengths: RowNumbers, longest: int | None = None) -> None:
        self.lengths = lengths.astype(np.uint64)
        if longest is None:
            longest = int(lengths.max(initial=1))
        high = math.isqrt(longest - 1) + 1
        self.bases = np.uint64(high), np.uint64(-(-longest // high))
        rounds = ROUNDS_OF_SHORT if longest < SHORT else ROUNDS
        counters = np.arange(1, rounds + 1, dtype=np.uint64)[:, None] * np.uint64(GOLDEN % 2**64)
        self.round_keys = mix_words(keys + counters)
        """(rounds, keys) added to a digit before it is hashed."""

    def at(self, first: int, last: int) -> RowNumbers:
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
        low, half = self.bases[1], np.uint64(32)
        digits = [numbers // low, numbers % low]
        for place, round_keys in enumerate(self.round_keys[:, keys]):
            changed, base = place % 2, self.bases[place % 2]
            hashed = mix_words(digits[1 - changed] + round_keys)
            total = digits[changed] + ((hashed >> half) * base >> half)
            digits[changed] = np.subtract(total, base, out=total, where=total >= base)
        found: Words = digits[0] * low + digits[1]
        return found


def find_in_order(rows: RowNumbers, wanted: RowNumbers) -> slice | None:
    """Return the slice of `rows` that equals `wanted`, or None if there is no such slice."""
    count = len(wanted)
    if count == 0:
        return None
    for place in (rows == wanted[0]).nonzero()[0].tolist():
        part = slice(place, place + count)
        if rows[part].tobytes() == wanted.tobytes():  # faster than comparing arrays
            return part
    return None
