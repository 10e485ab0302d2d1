"""How rows are dealt to workers and to the holders of populations: in lanes, so that neither number
changes a schedule.

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
MOST = 64


@dataclass(frozen=True)
class Lanes:
    """Rows 0 to N - 1 in lanes."""

    rows: int
    count: int
    """How many lanes."""

    @classmethod
    def of(cls, rows: int, batch: int) -> "Lanes":
        """As many as divide a batch evenly."""
        return cls(rows, math.gcd(batch, MOST))

    def schedule(self, seed: int, epoch: int) -> Rows:
        """The order in which an epoch visits its rows: one of each lane after the other."""
        depth = -(-self.rows // self.count)
        dealt = np.full((depth, self.count), -1)
        for lane in range(self.count):
            own = np.arange(lane, self.rows, self.count)
            dealt[: len(own), lane] = own[order(seed, epoch, len(own), lane)]
        return dealt[dealt >= 0]

    def held(self, rank: int = 0, size: int = 1) -> "HeldRows":
        """The part of one of so many holders."""
        return HeldRows(self, rank, size)


@dataclass(frozen=True)
class HeldRows:
    """The rows of one holder of several, in rising order; a row's index is its place among them."""

    lanes: Lanes
    rank: int
    size: int

    def rows(self) -> Rows:
        """All of them."""
        lanes = np.arange(self.rank, self.lanes.count, self.size)
        turns = np.arange(-(-self.lanes.rows // self.lanes.count))
        rows = (turns[:, None] * self.lanes.count + lanes).ravel()
        return rows[rows < self.lanes.rows]

    def contains(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows are held here."""
        return np.asarray(rows % self.lanes.count % self.size == self.rank)

    def select(self, rows: Rows) -> Rows:
        """Those of some rows that are held here."""
        return rows if self.size == 1 else rows[self.contains(rows)]

    def index(self, rows: Tensor) -> Tensor:
        """Where each of these rows stands among all that are held."""
        if self.size == 1:
            return rows
        count = len(range(self.rank, self.lanes.count, self.size))
        lane = rows.remainder(self.lanes.count)
        turn = rows.div(self.lanes.count, rounding_mode="floor")
        return turn * count + (lane - self.rank).div(self.size, rounding_mode="floor")
