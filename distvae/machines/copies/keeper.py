"""Keepers: processes with copies of what workers need to go on after a failure.

A keeper holds the copy of one worker: the states of its rows, and the last few points of the
training. A point is a moment between two blocks of rows, by its epoch and its batch. A copy can be
taken back to each of its points, since the states that were replaced later are kept too. Each start
of the workers is an incarnation; copies of the one before are kept until the new one has points.

A keeper imports neither torch nor Ray, and so starts in half a second.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distvae.system.disk import reserve_space
from distvae.system.memory import peak_memory

KEPT_POINTS = 4
"""Points that a copy can be taken back to. Workers are never further apart."""

Words: TypeAlias = NDArray[np.int64]
Places: TypeAlias = NDArray[np.int64] | slice
"""The places of some of a worker's rows in their order."""
Point: TypeAlias = tuple[int, int]
"""An epoch, and a batch of it."""
Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]


class LostCopy(RuntimeError):
    """The copy that was asked for is not here.

    The keeper's process has ended meanwhile, or its disk has no room for the copy.
    """


class WorkerState(NamedTuple):
    """State of a worker beside the states of its rows, needed to go on from a point."""

    position: Mapping[str, float]
    sums: Arrays
    """The worker's own sums of the epoch."""
    tensors: Arrays
    """Parameters and moments, which are the same on all workers; only some of them send any."""


class Extent(NamedTuple):
    """The worker whose copy it is, and the size of its populations."""

    rank: int
    size: int
    rows: int
    states: int
    words: int


class KnownCopy(NamedTuple):
    """Description of a copy by its keeper."""

    incarnation: str
    rank: int
    size: int
    points: Sequence[Point]
    has_tensors: bool


class RowStates(NamedTuple):
    """The states of some rows."""

    places: Places
    words: Words


class Update(NamedTuple):
    """Message of a worker at a point. It is one message because several would take as long each."""

    point: Point
    state: WorkerState
    changed: Sequence[RowStates]
    """The states that were replaced since the last point, in order."""


class Copy:
    """The copy of a worker."""

    def __init__(self, extent: Extent, mapped: str | None, owner: str = "") -> None:
        self.extent, self.owner = extent, owner
        """The worker whose copy it is, and the incarnation that may change it; '' if none may."""
        self.words = _empty(extent, mapped)
        self.points: dict[Point, WorkerState] = {}
        self.replaced: dict[Point, list[RowStates]] = {}
        """The states that were replaced since each point and before the next, in order."""

    def put(self, places: Places, words: Words) -> None:
        """Replace the states of some rows."""
        if self.points:
            newest = next(reversed(self.points))
            self.replaced[newest].append(RowStates(places, self.words[places].copy()))
        self.words[places] = words

    def reach(self, point: Point, state: WorkerState) -> None:
        """Remember a point, and forget the oldest one."""
        self.points[point] = state
        self.replaced[point] = []
        while len(self.points) > KEPT_POINTS:
            oldest = next(iter(self.points))
            del self.points[oldest], self.replaced[oldest]

    def return_to(self, point: Point) -> None:
        """Put back the states of an earlier point."""
        for later in reversed(list(self.points)):
            for places, words in reversed(self.replaced[later]):
                self.words[places] = words
            self.replaced[later].clear()
            if later == point:
                return
            del self.points[later], self.replaced[later]
        raise LostCopy(f"no point {point}")


class Keeper:
    """Copies of workers, by the incarnation that they belong to: one, or two during a change."""

    def __init__(self, mapped: str | None = None) -> None:
        self.mapped = mapped
        self.copies: dict[str, Copy] = {}

    def begin(self, incarnation: str, extent: Extent) -> None:
        """Make an empty copy, to be filled before its first point.

        Raise LostCopy if the disk has no room for it.
        """
        try:
            self.copies[incarnation] = Copy(extent, self.mapped, incarnation)
        except OSError as error:
            raise LostCopy(f"no room for a copy in {self.mapped}: {error}") from error

    def adopt(self, incarnation: str, former: str) -> None:
        """Let a copy belong to a new incarnation, which goes on from its last point."""
        self.copies[incarnation] = self._copy(former)
        self.copies[incarnation].owner = incarnation

    def put(self, incarnation: str, places: Places, words: Words) -> None:
        """Replace the states of some rows."""
        self._own_copy(incarnation).put(places, words)

    def reach(self, incarnation: str, point: Point, state: WorkerState) -> None:
        """Remember a point of the training."""
        self._own_copy(incarnation).reach(point, state)

    def update(self, incarnation: str, update: Update) -> None:
        """Replace the states that have changed, and remember the point."""
        for places, words in update.changed:
            self.put(incarnation, places, words)
        self.reach(incarnation, update.point, update.state)

    def known(self) -> list[KnownCopy]:
        """Return the copies that are held here and have points."""
        found = []
        for incarnation, copy in self.copies.items():
            if copy.points:
                has_tensors = all(bool(state.tensors) for state in copy.points.values())
                rank, size = copy.extent.rank, copy.extent.size
                points = list(copy.points)
                found.append(KnownCopy(incarnation, rank, size, points, has_tensors))
        return found

    def return_to(self, incarnation: str, point: Point) -> None:
        """Put back the states of an earlier point. Workers that were left behind change no more."""
        copy = self._copy(incarnation)
        copy.owner = ""
        copy.return_to(point)

    def state(self, incarnation: str) -> WorkerState:
        """Return what is known of the last point."""
        return next(reversed(self._copy(incarnation).points.values()))

    def read(self, incarnation: str, places: Places) -> Words:
        """Return the states of some rows."""
        words: Words = self._copy(incarnation).words[places]
        return words

    def keep_only(self, incarnation: str) -> None:
        """Forget the copies of other incarnations."""
        for other in self.copies.keys() - {incarnation}:
            del self.copies[other]

    def memory(self) -> int:
        """Return the most bytes of memory that this process has used."""
        return peak_memory()

    def _own_copy(self, incarnation: str) -> Copy:
        copy = self._copy(incarnation)
        if copy.owner != incarnation:
            raise LostCopy(f"the copy of incarnation {incarnation} belongs to a later one")
        return copy

    def _copy(self, incarnation: str) -> Copy:
        if incarnation not in self.copies:
            raise LostCopy(f"no copy of incarnation {incarnation}")
        return self.copies[incarnation]


def _empty(extent: Extent, mapped: str | None) -> Words:
    """Return an array for states, in memory or in an unnamed file in a folder."""
    shape = (extent.rows, extent.states, extent.words)
    if mapped is None or not extent.rows:
        return np.empty(shape, np.int64)
    with tempfile.TemporaryFile(dir=mapped, prefix="distvae-copy-") as file:
        reserve_space(file.fileno(), 8 * math.prod(shape))
        return np.memmap(file, np.int64, "r+", shape=shape)
