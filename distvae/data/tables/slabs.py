"""Rows on the way from their sources to their files.

A slab has consecutive rows of the sources, sorted by their future places. A file takes its rows
from a stretch of each slab. Every slab and every file has a name that only its whole content gets,
so those that are there need not be made again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import Array
from distvae.data.tables.formats import Table
from distvae.data.tables.plan import Plan, Stretch
from distvae.files.atomic import replaced_file

COPIED = 2**23
"""Bytes of rows that are copied together."""


@dataclass(frozen=True)
class Slabs:
    """The slabs of an ingest in their folder.

    A slab begins with where the rows of each file start in it. The places of all rows within
    their files follow, and then the rows.
    """

    folder: Path
    plan: Plan

    def names(self, stretch: Stretch) -> set[str]:
        """Return the names of the slabs of a stretch."""
        return {self._path(first).name for first, _ in self.plan.slabs(stretch)}

    def write(self, stretch: Stretch) -> None:
        """Read a stretch of the sources, and write its slabs."""
        blocks = self._blocks(stretch)
        rest = np.empty((0, self.plan.values), np.float32)
        for first, count in self.plan.slabs(stretch):
            rows, filled = np.empty((count, self.plan.values), np.float32), 0
            while filled < count:
                block = rest if len(rest) else next(blocks)
                taken = min(len(block), count - filled)
                rows[filled : filled + taken] = block[:taken]
                rest, filled = block[taken:], filled + taken
            self._write(first, rows)
        for _ in blocks:  # ends at once, or refuses a source that is no longer what it was
            pass

    def _blocks(self, stretch: Stretch) -> Iterator[Array]:
        for piece in stretch.pieces:
            source = self.plan.sources[piece.source]
            table = _opened(source.path, source.size, source.written)
            yield from table.blocks(self.plan.rows_per_block, piece.groups)
            source.refuse_changes()

    def _write(self, first: int, rows: Array) -> None:
        """Write the slab whose first row in the sources is this one."""
        places = self.plan.places(first, len(rows))
        by = np.argsort(places, kind="stable")
        firsts = np.array([part.first for part in self.plan.parts])
        bounds = np.searchsorted(places[by], [*firsts, self.plan.rows])
        within = places[by] - np.repeat(firsts, np.diff(bounds))
        step = max(1, COPIED // (4 * self.plan.values))
        with replaced_file(self._path(first)) as partial, partial.open("wb") as stream:
            stream.write(bounds.astype(np.int64).data)
            stream.write(within.astype(np.uint32).data)
            for start in range(0, len(by), step):
                stream.write(rows[by[start : start + step]].data)

    def take(self, number: int) -> Array:
        """Return the rows of a file in their places."""
        part = self.plan.parts[number]
        rows, filled = np.empty((part.rows, self.plan.values), np.float32), 0
        for stretch in self.plan.stretches:
            for first, count in self.plan.slabs(stretch):
                with self._path(first).open("rb", buffering=0) as stream:
                    filled += self._take_from(stream, count, number, rows)
        assert filled == part.rows, "places are a permutation"
        return rows

    def _take_from(self, stream: FileIO, count: int, number: int, rows: Array) -> int:
        """Copy what a slab has of a file's rows to their places; return how many they are."""
        bounds, header = np.empty(2, np.int64), 8 * (len(self.plan.parts) + 1)
        _read(stream, 8 * number, bounds)
        start, stop = map(int, bounds)
        places = np.empty(stop - start, np.uint32)
        _read(stream, header + 4 * start, places)
        width = 4 * self.plan.values
        step = max(1, COPIED // width)
        for first in range(0, len(places), step):
            some = places[first : first + step]
            copied = np.empty((len(some), self.plan.values), np.float32)
            _read(stream, header + 4 * count + width * (start + first), copied)
            rows[some] = copied
        return len(places)

    def _path(self, first: int) -> Path:
        return self.folder / f"slab-{first:013}"


def _read(stream: FileIO, place: int, array: NDArray[np.generic]) -> None:
    """Fill an array with what stands at a place of a file."""
    stream.seek(place)
    whole = array.reshape(-1).view(np.uint8)
    filled = 0
    while filled < len(whole):
        count = stream.readinto(whole[filled:].data)
        assert count, "a slab is as long as its header says"
        filled += count


@lru_cache(maxsize=64)
def _opened(path: Path, size: int, written: int) -> Table:
    """Return a table, which a process opens once."""
    return Table.open(path)
