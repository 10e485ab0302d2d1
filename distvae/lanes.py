"""How rows are dealt to workers and to the holders of populations: in lanes, so that neither number changes a schedule.

Row r belongs to lane r % L, and lane l to holder l % size. Every batch of an epoch takes as many rows from each lane
(the end of the epoch may be uneven), so workers are equally busy, and rows stay with their holder from epoch to epoch.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distvae.noise import order

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

    def holder(self, rows: Rows, size: int) -> Rows:
        """Which of so many holders each row belongs to."""
        return rows % self.count % size

    def held(self, rank: int, size: int) -> Rows:
        """The rows of one holder, lane by lane."""
        return np.concatenate([np.arange(lane, self.rows, self.count) for lane in range(rank, self.count, size)])
