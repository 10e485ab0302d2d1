"""Divide rows among workers so that their number does not change the schedule.

Rows are divided into L lanes, and lanes among workers, or among the shards that hold populations.
Row r belongs to lane r % L, and lane l to holder l % size. Every batch of an epoch takes as many
rows from each lane (the end of the epoch may be uneven), so workers are equally busy, and rows stay
with their holder from epoch to epoch.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distvae.numerics.noise import order

Rows = NDArray[np.int64]
MAX_LANES = 64


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

    def schedule(self, seed: int, epoch: int) -> Rows:
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

    def rows(self) -> Rows:
        """Return all rows that are held."""
        lanes = np.arange(self.rank, self.lanes.count, self.size)
        turns = np.arange(-(-self.lanes.rows // self.lanes.count))
        rows = (turns[:, None] * self.lanes.count + lanes).ravel()
        return rows[rows < self.lanes.rows]

    def contains(self, rows: Rows) -> NDArray[np.bool_]:
        """Return for each of some rows whether it is held."""
        return np.asarray(rows % self.lanes.count % self.size == self.rank)

    def select(self, rows: Rows) -> Rows:
        """Return those of some rows that are held."""
        return rows if self.size == 1 else rows[self.contains(rows)]

    def index(self, rows: Tensor) -> Tensor:
        """Return the position of each row among all rows that are held."""
        if self.size == 1:
            return rows
        count = len(range(self.rank, self.lanes.count, self.size))
        lane = rows.remainder(self.lanes.count)
        turn = rows.div(self.lanes.count, rounding_mode="floor")
        return turn * count + (lane - self.rank).div(self.size, rounding_mode="floor")
