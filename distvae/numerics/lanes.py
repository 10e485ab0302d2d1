"""Divide rows among workers so that their number does not change the schedule.

Rows are divided into L lanes, and lanes among workers, which hold the populations of their rows.
Row r belongs to lane r % L, and lane l to holder l % size. Every batch of an epoch takes as many
rows from each lane (the end of the epoch may be uneven), so workers are equally busy, and rows stay
with their holder from epoch to epoch.

Many rows are divided into bands instead (`bands.py`).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distvae.numerics.noise import order

RowNumbers = NDArray[np.int64]
"""Numbers of rows in their dataset."""
MAX_LANES = 64


class Order(Protocol):
    """The order of rows in an epoch, as one worker sees it."""

    def rows(self, first: int, last: int) -> RowNumbers:
        """Return the worker's rows among those at places `first` to `last` - 1 of all rows."""


class Share(Protocol):
    """The part that one worker has in every batch."""

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch."""

    def select(self, rows: RowNumbers) -> RowNumbers:
        """Return the worker's part of a batch of rows."""


@dataclass(frozen=True)
class Lanes:
    """Rows 0 to N - 1, divided into lanes."""

    rows: int
    count: int
    """Number of lanes."""

    @classmethod
    def of(cls, rows: int, batch: int) -> "Lanes":
        """Return the lanes of some rows: as many as divide a batch evenly, and at most 64."""
        return cls(rows, math.gcd(batch, MAX_LANES))

    def schedule(self, seed: int, epoch: int) -> RowNumbers:
        """Return all rows in the order of an epoch, which takes one row of each lane in turn."""
        depth = -(-self.rows // self.count)
        table = np.full((depth, self.count), -1)
        for lane in range(self.count):
            rows = np.arange(lane, self.rows, self.count)
            table[: len(rows), lane] = rows[order(seed, epoch, len(rows), lane)]
        return table[table >= 0]

    def held(self, rank: int = 0, size: int = 1) -> "HeldRows":
        """Return the rows of one of `size` holders."""
        return HeldRows(self, rank, size)


@dataclass(frozen=True)
class HeldRows:
    """The rows of one of several holders, in rising order."""

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
        """Return those at some places among all rows that are held."""
        chosen = range(len(self))[places]
        numbers = np.arange(chosen.start, chosen.stop, chosen.step)
        turns, lanes = np.divmod(numbers, max(self._held_lanes, 1))
        return np.asarray(turns * self.lanes.count + lanes * self.size + self.rank)

    def contains(self, rows: RowNumbers) -> NDArray[np.bool_]:
        """Return for each of some rows whether it is held."""
        return np.asarray(rows % self.lanes.count % self.size == self.rank)

    def select(self, rows: RowNumbers) -> RowNumbers:
        """Return those of some rows that are held."""
        return rows if self.size == 1 else rows[self.contains(rows)]

    def index(self, rows: Tensor) -> Tensor:
        """Return the position of each row among all rows that are held."""
        if self.size == 1:
            return rows
        lane = rows.remainder(self.lanes.count)
        turn = rows.div(self.lanes.count, rounding_mode="floor")
        return turn * self._held_lanes + (lane - self.rank).div(self.size, rounding_mode="floor")

    def overlaps(self, other: "HeldRows") -> bool:
        """Return whether another holder of the same rows may have any of these."""
        if self.lanes != other.lanes:
            return True
        lanes, others = (range(held.rank, held.lanes.count, held.size) for held in (self, other))
        return not set(lanes).isdisjoint(others)

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch, in which every batch has as many rows of each lane."""
        return HeldInList(self.lanes.schedule(seed, epoch), self)


@dataclass(frozen=True)
class HeldInList:
    """The rows of a holder in the order of an epoch, which is a list of all rows."""

    whole: RowNumbers
    held: HeldRows

    def rows(self, first: int, last: int) -> RowNumbers:
        """Return the holder's rows among those at these places."""
        return self.held.select(self.whole[first:last])


@dataclass(frozen=True)
class FreeRows:
    """The part of one of several workers in batches of rows that nobody holds."""

    count: int
    batch: int
    rank: int
    size: int

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch."""
        return FreeInList(order(seed, epoch, self.count), self)

    def select(self, rows: RowNumbers) -> RowNumbers:
        """Return the worker's part of a batch: those at every `size`-th place."""
        return rows[self.rank :: self.size]


@dataclass(frozen=True)
class FreeInList:
    """The rows of a worker in the order of an epoch, which is a list of all rows."""

    whole: RowNumbers
    free: FreeRows

    def rows(self, first: int, last: int) -> RowNumbers:
        """Return the worker's part of each batch among the rows at these places."""
        free, rows = self.free, self.whole[first:last]
        if free.size == 1:
            return rows
        places = np.arange(first, first + len(rows))
        return np.asarray(rows[places % free.batch % free.size == free.rank])


def find_in_order(rows: RowNumbers, wanted: RowNumbers) -> slice | None:
    """Return where the wanted rows are among others, if they follow each other there."""
    count = len(wanted)
    if count == 0:
        return None
    for place in (rows == wanted[0]).nonzero()[0].tolist():
        part = slice(place, place + count)
        if rows[part].tobytes() == wanted.tobytes():  # faster than comparing arrays
            return part
    return None
