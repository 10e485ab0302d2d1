"""Shard rows among workers so that the order of training does not depend on the number of workers.

Rows are divided into L lanes (strided shards): row r belongs to lane r % L. Lanes are divided among
workers: worker l % size holds lane l, with the populations of its rows. Every batch takes the same
number of rows from each lane, except at the end of an epoch. The workers are therefore equally
busy, and each row stays with its worker from epoch to epoch.

Large datasets are divided into bands instead (`bands.py`).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distvae.numerics.noise import order

RowNumbers = NDArray[np.int64]
"""Row numbers in a dataset."""
MAX_LANES = 64


class Order(Protocol):
    """The order of rows in an epoch, as one worker sees it."""

    def rows(self, first: int, last: int) -> RowNumbers:
        """Return the worker's rows among places `first` to `last` - 1 of the epoch's order."""


class Share(Protocol):
    """One worker's share of every batch."""

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch."""

    def select(self, rows: RowNumbers) -> RowNumbers:
        """Return the worker's share of a batch of rows."""


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
        return whole * self._held_lanes + len(range(self.rank, rest, self.size))

    @property
    def _held_lanes(self) -> int:
        return len(range(self.rank, self.lanes.count, self.size))

    def part(self, places: slice) -> RowNumbers:
        """Return a slice of the rows that are held."""
        chosen = range(len(self))[places]
        numbers = np.arange(chosen.start, chosen.stop, chosen.step)
        turns, lanes = np.divmod(numbers, max(self._held_lanes, 1))
        return np.asarray(turns * self.lanes.count + lanes * self.size + self.rank)

    def contains(self, rows: RowNumbers) -> NDArray[np.bool_]:
        """Return for each row whether it is held."""
        return np.asarray(rows % self.lanes.count % self.size == self.rank)

    def select(self, rows: RowNumbers) -> RowNumbers:
        """Return the rows of a batch that are held."""
        return rows if self.size == 1 else rows[self.contains(rows)]

    def index(self, rows: Tensor) -> Tensor:
        """Return the position of each row among all rows that are held."""
        if self.size == 1:
            return rows
        lane = rows.remainder(self.lanes.count)
        turn = rows.div(self.lanes.count, rounding_mode="floor")
        return turn * self._held_lanes + (lane - self.rank).div(self.size, rounding_mode="floor")

    def overlaps(self, other: "HeldRows") -> bool:
        """Return whether another holder may have some of the same rows."""
        if self.lanes != other.lanes:
            return True
        lanes, others = (range(held.rank, held.lanes.count, held.size) for held in (self, other))
        return not set(lanes).isdisjoint(others)

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch, in which every batch has equally many rows per lane."""
        return HeldInList(self.lanes.schedule(seed, epoch), self)


@dataclass(frozen=True)
class HeldInList:
    """The held rows of one worker in the order of an epoch, which is stored as a list."""

    whole: RowNumbers
    held: HeldRows

    def rows(self, first: int, last: int) -> RowNumbers:
        """Return the worker's rows among places `first` to `last` - 1 of the epoch's order."""
        return self.held.select(self.whole[first:last])


@dataclass(frozen=True)
class FreeRows:
    """One worker's share of batches whose rows no worker holds."""

    count: int
    batch: int
    rank: int
    size: int

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch."""
        return FreeInList(order(seed, epoch, self.count), self)

    def select(self, rows: RowNumbers) -> RowNumbers:
        """Return every `size`-th row of a batch."""
        return rows[self.rank :: self.size]


@dataclass(frozen=True)
class FreeInList:
    """The rows of one worker in the order of an epoch, if no worker holds rows."""

    whole: RowNumbers
    free: FreeRows

    def rows(self, first: int, last: int) -> RowNumbers:
        """Return the worker's rows among places `first` to `last` - 1 of the epoch's order."""
        free, rows = self.free, self.whole[first:last]
        if free.size == 1:
            return rows
        places = np.arange(first, first + len(rows))
        return np.asarray(rows[places % free.batch % free.size == free.rank])


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
