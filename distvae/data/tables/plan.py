"""The plan of an ingest, made before it begins: which rows go into which file.

It depends on the sources and on the settings, and not on the number of processes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.data.tables.formats import Table
from distvae.files.refusal import Refusal, shown
from distvae.numerics.permutations import Permutations

PLACING = -3  # the epoch whose order places rows: that of none in training, which would undo it
FILE = 2**28  # bytes of the rows of a file
SLAB = 2**28  # bytes of rows that are sorted together
BLOCK = 2**25  # bytes of rows that are read together
COPIES = 4
"""Copies of the rows that are read together."""
PROCESS = 2**27
"""Bytes of memory of a process that holds no rows."""
TOGETHER = 2**15
"""Places that are computed together, so that they stay in a processor's cache."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Division:
    """The splits, the order and the files that rows are divided into."""

    val: float = 0.05
    """Share of the rows for validation; `test` likewise."""
    test: float = 0.05
    seed: int = 0
    """Seed of the order of the rows."""
    rows_per_file: int | None = None
    """None for files of 256 MB."""

    def counts(self, rows: int) -> dict[str, int]:
        """Return the number of rows of every split that has any."""
        shares = {"--val": self.val, "--test": self.test, "--val + --test": self.val + self.test}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise Refusal(f"{name}: {share:g}; at least 0 and less than 1 expected")
        aside = {
            split: max(1, round(share * rows))
            for split, share in {"val": self.val, "test": self.test}.items()
            if share
        }
        train = rows - sum(aside.values())
        if train < 1:
            raise Refusal(
                f"--val, --test: nothing is left to train on of {rows} rows; more rows or smaller"
                " shares expected"
            )
        return {"train": train} | aside


@dataclass(frozen=True)
class Source:
    """A table to read, as it was when the ingest was planned."""

    path: Path
    size: int
    written: int
    """When it was written, in nanoseconds."""
    rows: int

    @classmethod
    def of(cls, table: Table) -> "Source":
        """Return a table as it is now."""
        status = table.path.stat()
        return cls(table.path.absolute(), status.st_size, status.st_mtime_ns, table.rows)

    def refuse_changes(self) -> None:
        """Raise `Refusal` if the file was written since."""
        status = self.path.stat()
        if (status.st_size, status.st_mtime_ns) != (self.size, self.written):
            raise Refusal(
                f"{self.path}: written while it was read; a file that does not change expected"
            )


@dataclass(frozen=True)
class Part:
    """A file to write, with the rows whose places begin at the first."""

    split: str
    name: str
    first: int
    rows: int


@dataclass(frozen=True)
class Piece:
    """Some groups of rows of a source."""

    source: int
    groups: range
    rows: int


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of all sources, which are read together."""

    first: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return sum(piece.rows for piece in self.pieces)


@dataclass(frozen=True)
class Plan:
    """All that a process needs to know of an ingest."""

    sources: tuple[Source, ...]
    values: int
    seed: int
    counts: Mapping[str, int]
    """The rows of each split."""
    rows_per_file: int
    rows_per_slab: int
    stretches: tuple[Stretch, ...]

    @classmethod
    def of(cls, tables: Sequence[Table], division: Division, rows_per_slab: int | None) -> "Plan":
        """Return the plan for some tables; refuse those that differ in their columns."""
        values = _width(tables)
        _refuse_other_names(tables)
        slab = rows_per_slab or max(1, SLAB // (4 * values))
        return cls(
            sources=tuple(map(Source.of, tables)),
            values=values,
            seed=division.seed,
            counts=division.counts(sum(table.rows for table in tables)),
            rows_per_file=division.rows_per_file or max(1, FILE // (4 * values)),
            rows_per_slab=slab,
            stretches=tuple(_stretches(tables, slab)),
        )

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return sum(self.counts.values())

    @property
    def rows_per_block(self) -> int:
        """Return the most rows that are read together."""
        return min(max(1, BLOCK // (4 * self.values)), self.rows_per_slab)

    @property
    def memory(self) -> int:
        """Return the bytes of memory that a process may take."""
        held = min(max(self.rows_per_slab, self.rows_per_file), self.rows)
        read = min(self.rows_per_block, self.rows)
        return PROCESS + 4 * self.values * (held + COPIES * read)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Return the files to write."""
        return tuple(self._parts())

    def _parts(self) -> Iterator[Part]:
        first = 0
        for split, count in self.counts.items():
            for k, start in enumerate(range(0, count, self.rows_per_file)):
                rows = min(self.rows_per_file, count - start)
                yield Part(split, f"{split}-{k:05}.arrow", first + start, rows)
            first += count

    def slabs(self, stretch: Stretch) -> list[tuple[int, int]]:
        """Return the first row and the number of rows of each slab of a stretch."""
        last = stretch.first + stretch.rows
        firsts = range(stretch.first, last, self.rows_per_slab)
        return [(first, min(self.rows_per_slab, last - first)) for first in firsts]

    def places(self, first: int, rows: int) -> Places:
        """Return the places of some rows, which follow each other in the sources."""
        sequence = np.random.SeedSequence([self.seed, PLACING % 2**64])
        key = sequence.generate_state(1, np.uint64).astype(np.uint64)
        order, last = Permutations(key, np.array([self.rows])), first + rows
        starts = range(first, last, TOGETHER)
        return np.concatenate(
            [order.at(start, min(start + TOGETHER, last))[:, 0] for start in starts]
        )

    @cached_property
    def digest(self) -> str:
        """Return a name for the plan: two ingests of one name write the same bytes."""
        facts = asdict(self)
        return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]

    @property
    def sources_digest(self) -> str:
        """Return a digest of the names, sizes and times of the sources."""
        facts = [(source.path.name, source.size, source.written) for source in self.sources]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _width(tables: Sequence[Table]) -> int:
    first = tables[0]
    for table in tables:
        if table.values != first.values:
            raise Refusal(
                f"{table.path}: rows of {table.values} values; {first.values} expected, as"
                f" {first.path} has"
            )
    return first.values


def _refuse_other_names(tables: Sequence[Table]) -> None:
    """Raise `Refusal` if columns differ by name from those of the first table that has names."""
    named = [table for table in tables if table.names]
    for table in named[1:]:
        pairs = zip(table.names, named[0].names, strict=True)
        differing = [(found, expected) for found, expected in pairs if found != expected]
        if differing:
            found, expected = map(list, zip(*differing, strict=True))
            raise Refusal(
                f"{table.path}: columns {shown(found)}; {shown(expected)} expected in their places,"
                f" as {named[0].path} has"
            )


def _stretches(tables: Sequence[Table], rows: int) -> Iterator[Stretch]:
    """Yield stretches of so many rows at most, unless a single group has more."""
    first, waiting, count = 0, list[Piece](), 0
    for piece in _pieces(tables, rows):
        if waiting and count + piece.rows > rows:
            yield Stretch(first, tuple(waiting))
            first, waiting, count = first + count, [], 0
        waiting.append(piece)
        count += piece.rows
    yield Stretch(first, tuple(waiting))


def _pieces(tables: Sequence[Table], rows: int) -> Iterator[Piece]:
    """Yield the groups of all tables, several together up to so many rows."""
    for source, table in enumerate(tables):
        start = 0
        while start < len(table.groups):
            reach = int(np.searchsorted(table.starts, table.starts[start] + rows, "right")) - 1
            stop = max(start + 1, reach)
            yield Piece(source, range(start, stop), int(table.starts[stop] - table.starts[start]))
            start = stop
