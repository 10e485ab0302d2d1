"""Shard large datasets among workers, and shuffle them without storing the order.

A band is a shard of consecutive rows, and each worker holds consecutive bands, so that it reads one
range of the data. The number of bands equals the batch size, and each batch takes one row from each
band. The order within a band is a keyed permutation. A worker computes it only for its own bands,
and only for the next batches.
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
"""The largest dataset whose order is stored as a list. At this size the list costs each worker
0.09 s an epoch and 18 MB; both grow with the size of the dataset.
"""
COMPUTED = 8192
"""Rows of a worker that are permuted together (at least one batch): enough rows to make NumPy's
overhead small, and few enough for the processor's cache.
"""


def divide(rows: int, batch: int) -> Lanes:
    """Divide rows into lanes, or into bands if there are more than `LISTED` rows."""
    if rows > LISTED:
        return Bands(rows, min(batch, rows))
    return Lanes.of(rows, batch)


def share_of(lanes: Lanes, batch: int, rank: int, size: int, keeps: bool) -> Share:
    """Return a worker's share of every batch.

    Rows stay with one worker if it keeps state for them, or if they are divided into bands.
    """
    if keeps or isinstance(lanes, Bands):
        return lanes.held(rank, size)
    return FreeRows(lanes.rows, batch, rank, size)


class Bands(Lanes):
    """Rows 0 to N - 1, divided into bands of consecutive rows.

    If N is not a multiple of the number of bands, the first bands have one row more.
    """

    def schedule(self, seed: int, epoch: int) -> RowNumbers:
        """Return all rows in the order of an epoch, one row from each band in turn."""
        return self.held().order(seed, epoch).rows(0, self.rows)

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
    def stretch(self) -> range:
        """The rows of this worker."""
        return range(self.lanes.start(self.bands.start), self.lanes.start(self.bands.stop))

    def __len__(self) -> int:
        return len(self.stretch)

    def part(self, places: slice) -> RowNumbers:
        """Return a slice of the rows that are held."""
        rows = self.stretch[places]
        return np.arange(rows.start, rows.stop, rows.step)

    def contains(self, rows: RowNumbers) -> NDArray[np.bool_]:
        """Return for each row whether it is held."""
        return np.asarray((rows >= self.stretch.start) & (rows < self.stretch.stop))

    def index(self, rows: Tensor) -> Tensor:
        """Return the position of each row among all rows that are held."""
        return rows - self.stretch.start if self.stretch.start else rows

    def overlaps(self, other: HeldRows) -> bool:
        """Return whether another holder may have some of the same rows."""
        if not isinstance(other, HeldBands):
            return True
        one, another = self.stretch, other.stretch
        return max(one.start, another.start) < min(one.stop, another.stop)

    def order(self, seed: int, epoch: int) -> Order:
        """Return the order of an epoch, in which every batch has one row from each band."""
        return KeyedOrder(self, order_key(seed, epoch))


class KeyedOrder:
    """The rows of one worker in the order of an epoch.

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

    def rows(self, first: int, last: int) -> RowNumbers:
        """Return this worker's rows among places `first` to `last` - 1 of the epoch's order."""
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
        """Return the number of this worker's rows before a place in the epoch's order."""
        turn, band = divmod(place, self.held.lanes.count)
        bands = self.held.bands
        return turn * len(bands) + min(max(band - bands.start, 0), len(bands))

    def _group(self, group: int) -> RowNumbers:
        """Return the rows of a group of turns. They are cached until another group is computed."""
        if self.computed[0] != group:
            first = group * self.turns
            rows = self.permutations.at(first, first + self.turns) + self.starts[:-1]
            self.computed = group, rows.ravel()
        return self.computed[1]
