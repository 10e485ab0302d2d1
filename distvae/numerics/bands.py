"""Divide many rows among workers, and visit them in an order that takes no memory.

A band is a lane of consecutive rows, so that a worker holds, reads and opens one stretch of the
data. There are as many bands as a batch has rows, and each batch takes one row of each band. The
order within a band is a keyed permutation: a worker computes it for its own bands alone, and only
for the batches that come next.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distvae.numerics.lanes import FreeRows, HeldRows, Lanes, Order, RowNumbers, Share
from distvae.numerics.noise import order_key
from distvae.numerics.permutations import Permutations, derived_keys

LISTED = 2**20
"""The most rows whose order is a list. A list of so many takes 0.09 s an epoch and 18 MB in each
worker; both grow with the rows of all workers.
"""
COMPUTED = 8192
"""Rows of a worker whose places are computed together, at least one batch: enough that NumPy's own
time is small beside them, and few enough for the cache of a processor.
"""


def divide(rows: int, batch: int) -> Lanes:
    """Return how rows are divided: into lanes, or into bands if they are many."""
    if rows > LISTED:
        return Bands(rows, min(batch, rows))
    return Lanes.of(rows, batch)


def share_of(lanes: Lanes, batch: int, rank: int, size: int, keeps: bool) -> Share:
    """Return a worker's part of every batch. Only where something is kept for the rows, or where
    they are many, they stay with a worker.
    """
    if keeps or isinstance(lanes, Bands):
        return lanes.held(rank, size)
    return FreeRows(lanes.rows, batch, rank, size)


class Bands(Lanes):
    """Rows 0 to N - 1, divided into bands of consecutive rows, the first of which may be longer by
    one.
    """

    def schedule(self, seed: int, epoch: int) -> RowNumbers:
        """Return all rows in the order of an epoch, which takes one row of each band in turn."""
        return self.held().order(seed, epoch).rows(0, self.rows)

    def held(self, rank: int = 0, size: int = 1) -> "HeldBands":
        """Return the rows of one of `size` holders, which holds consecutive bands."""
        return HeldBands(self, rank, size)

    def start(self, band: int) -> int:
        """Return the first row of a band."""
        length, longer = divmod(self.rows, self.count)
        return band * length + min(band, longer)


@dataclass(frozen=True)
class HeldBands(HeldRows):
    """The rows of one of several holders: one stretch of consecutive rows."""

    lanes: Bands

    @cached_property
    def bands(self) -> range:
        """The bands that are held."""
        count = self.lanes.count
        return range(-(-self.rank * count // self.size), -(-(self.rank + 1) * count // self.size))

    @cached_property
    def stretch(self) -> range:
        """The rows that are held."""
        return range(self.lanes.start(self.bands.start), self.lanes.start(self.bands.stop))

    def __len__(self) -> int:
        return len(self.stretch)

    def part(self, places: slice) -> RowNumbers:
        """Return those at some places among all rows that are held."""
        rows = self.stretch[places]
        return np.arange(rows.start, rows.stop, rows.step)

    def contains(self, rows: RowNumbers) -> NDArray[np.bool_]:
        """Return for each of some rows whether it is held."""
        return np.asarray((rows >= self.stretch.start) & (rows < self.stretch.stop))

    def index(self, rows: Tensor) -> Tensor:
        """Return the position of each row among all rows that are held."""
        return rows - self.stretch.start if self.stretch.start else rows

    def overlaps(self, other: HeldRows) -> bool:
        """Return whether another holder of the same rows may have any of these."""
        if not isinstance(other, HeldBands):
            return True
        one, another = self.stretch, other.stretch
        return max(one.start, another.start) < min(one.stop, another.stop)

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch, in which every batch has one row of each band."""
        return KeyedOrder(self, order_key(seed, epoch))


class KeyedOrder:
    """The rows of a holder of bands in the order of an epoch.

    A turn is one row of each band; the last turn may lack the last bands.
    """

    def __init__(self, held: HeldBands, key: int) -> None:
        lanes, bands = held.lanes, held.bands
        self.held = held
        self.starts = np.array([lanes.start(band) for band in (*bands, bands.stop)])
        keys = derived_keys(key, np.arange(bands.start, bands.stop))
        longest = -(-lanes.rows // lanes.count)
        self.permutations = Permutations(keys, np.diff(self.starts), longest)
        self.turns = max(COMPUTED // max(len(bands), 1), 1)
        """The turns that are computed together."""
        self.computed: tuple[int, RowNumbers] = -1, np.empty(0, np.int64)

    def rows(self, first: int, last: int) -> RowNumbers:
        """Return the holder's rows among those at these places."""
        start, stop = self._held_before(first), self._held_before(min(last, self.held.lanes.rows))
        together = self.turns * len(self.held.bands)
        parts = [np.empty(0, np.int64)]
        while start < stop:
            group, place = divmod(start, together)
            end = min(stop - start + place, together)
            parts.append(self._group(group)[place:end])
            start += end - place
        return parts[-1] if len(parts) == 2 else np.concatenate(parts)

    def _held_before(self, place: int) -> int:
        """Return how many of the rows before a place the holder has."""
        turn, band = divmod(place, self.held.lanes.count)
        bands = self.held.bands
        return turn * len(bands) + min(max(band - bands.start, 0), len(bands))

    def _group(self, group: int) -> RowNumbers:
        """Return the rows of a group of turns, which are kept until the next group."""
        if self.computed[0] != group:
            first = group * self.turns
            rows = self.permutations.at(first, first + self.turns) + self.starts[:-1]
            self.computed = group, rows.ravel()
        return self.computed[1]
