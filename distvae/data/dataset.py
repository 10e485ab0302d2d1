"""Data as training sees it: rows by split, and the recordings that they come from."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distvae.files.refusal import Refusal
from distvae.numerics.arrays import AnyArray, Facts

Array = NDArray[np.float32]
FileOrArray: TypeAlias = Path | AnyArray
"""A picture, a recording, or an array of rows, images or a signal."""
Labels = NDArray[np.int64]
"""(N,) the class of each row."""


@dataclass(frozen=True)
class Factors:
    """The known factors that determine each row."""

    names: tuple[str, ...]
    ordered: tuple[bool, ...]
    """Whether the levels of a factor have an order, as sizes have and shapes do not."""
    levels: dict[str, NDArray[np.int64]]
    """(N, factors) by split."""


class Combinations(NamedTuple):
    """Combinations of causes to test a model of the data with, as numbers of causes."""

    impossible: tuple[tuple[int, ...], ...]
    possible: tuple[tuple[int, ...], ...]


class Rows(Protocol):
    """A table of float32 (N, D), in memory or not: anything that gives arrays for slices and for
    row numbers.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Return N and D."""

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Return the type of the values."""

    @property
    def ndim(self) -> int:
        """Return 2."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[np.integer], /) -> Array: ...


class LazyRows(ABC):
    """Rows that become arrays when they are indexed."""

    ndim = 2
    dtype = np.dtype(np.float32)
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, rows: slice | NDArray[np.integer], /) -> Array:
        """Return the rows of a slice, or those with the given numbers."""


class Stacked(LazyRows):
    """Tables of one width, stacked into one table. Only the requested rows are copied."""

    def __init__(self, parts: Sequence[Rows], facts: Facts | None = None) -> None:
        self.parts = parts
        self.facts = facts
        """The facts that an ingest recorded about all rows, if any."""
        self.starts = np.cumsum([0, *map(len, parts)])
        self.shape = (int(self.starts[-1]), parts[0].shape[1])

    def __getitem__(self, rows: slice | NDArray[np.integer], /) -> Array:
        if len(self.parts) == 1:
            return self.parts[0][rows]
        numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {len(self)}")
        found = np.empty((len(numbers), self.shape[1]), self.dtype)
        part = np.searchsorted(self.starts, numbers, "right") - 1
        for places in positions_by_label(part):
            k = part[places[0]]
            found[places] = self.parts[k][numbers[places] - self.starts[k]]
        return found


def recorded_facts(rows: Rows) -> Facts | None:
    """Return the facts that an ingest recorded about rows, or None."""
    return rows.facts if isinstance(rows, Stacked) else None


def stack(parts: Sequence[Rows]) -> Rows:
    """Return several tables as one, the first above the second."""
    return parts[0] if len(parts) == 1 else Stacked(parts)


def positions_by_label(labels: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the positions of each label, in the order of the labels."""
    by = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[by])) + 1
    return np.split(by, ends) if len(by) else []


BUILT_IN = "built-in speech"
"""The name of the synthetic speech, and the data.path that stands for it."""


@dataclass(frozen=True)
class Recording:
    """One sound file of a dataset."""

    file: str
    """Relative to the dataset's root, with forward slashes."""
    speaker: str
    split: str
    """train | val | test"""


@dataclass(frozen=True)
class Dataset:
    """Data points by split."""

    name: str
    """What a person would call it."""
    unit: str
    """What one data point is: frame | image | window | row."""
    digest: str
    """Changes with the content and with every parameter of the preparation."""
    splits: Mapping[str, Rows]
    """train, val and test, memory-mapped where they may be large."""
    root: Path
    recordings: tuple[Recording, ...] = field(default=())
    """Speech only: every file with its speaker and split, in a fixed order."""
    lengths: tuple[int, ...] = field(default=())
    """Speech only: the frames of each recording; within a split the rows follow the recordings'
    order.
    """
    pictures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Folders of pictures only: the file of each row by split, relative to the dataset's root."""
    shape: tuple[int, ...] = ()
    """(channels, height, width) of an image or (channels, samples) of a sound, whose values a row
    holds flat; empty for other rows.
    """
    uri: str = ""
    """The URI that the data were copied from, if they were."""
    scale: float = 1.0
    """The value of 1 in a row, in the units of the data."""

    @property
    def dims(self) -> int:
        """Return the number of values of a row."""
        return int(self.splits["train"].shape[1])

    @property
    def origin(self) -> str:
        """Return the data.path that finds the data again."""
        return BUILT_IN if self.name == BUILT_IN else self.uri or str(self.root)

    def split_names(self, split: str) -> list[str]:
        """Return the splits that a name stands for. Refuse an empty one. `all` leaves out splits
        that are empty or repeat another one's rows.
        """
        filled = {name: rows for name, rows in self.splits.items() if len(rows)}
        if split == "all":
            first: dict[int, str] = {}
            for name, rows in filled.items():
                first.setdefault(id(rows), name)
            return list(first.values())
        if split not in self.splits:
            raise Refusal(f"no split '{split}'; {', '.join(self.splits)} or all expected")
        if split not in filled:
            raise Refusal(
                f"{self.name}: no {self.unit} in split '{split}'; {', '.join(filled)} or all"
                " expected"
            )
        return [split]

    def rows(self, split: str) -> Iterator[tuple[Recording, slice]]:
        """Yield the recordings of a split, each with the slice of its rows."""
        start = 0
        for recording, length in zip(self.recordings, self.lengths, strict=True):
            if recording.split == split:
                yield recording, slice(start, start + length)
                start += length


IN_MEMORY = "an array in memory"
"""The data.path of a run that was trained on an array."""
BLOCK = 4096
"""Rows that are hashed at once."""


class ChosenRows(LazyRows):
    """Some rows of an array, converted to float32 when they are read."""

    def __init__(self, array: Rows | NDArray[np.generic], numbers: NDArray[np.integer]) -> None:
        self.array, self.numbers = array, numbers
        self.shape = (len(numbers), array.shape[1])

    def __getitem__(self, rows: slice | NDArray[np.integer], /) -> Array:
        with np.errstate(over="ignore"):  # training refuses what becomes infinite
            return np.asarray(self.array[self.numbers[rows]], np.float32)


def split_rows(
    array: Rows | NDArray[np.generic], val_share: float, seed: int
) -> tuple[ChosenRows, ChosenRows]:
    """Return rows to train on, and others to validate on that a seed draws.

    Training rows validate where the share is less than half a row.
    """
    rows = len(array)
    drawn = np.random.default_rng(seed).permutation(rows)
    count = min(round(val_share * rows), rows - 1)
    train, val = (
        ChosenRows(array, np.sort(drawn[count:])),
        ChosenRows(array, np.sort(drawn[:count])),
    )
    return train, val if count else train


def dataset_of_rows(
    train: Rows, val: Rows, unit: str = "row", shape: tuple[int, ...] = ()
) -> Dataset:
    """Return rows in memory as a dataset. Validation rows also stand for test rows."""
    splits = {"train": train, "val": val, "test": val}
    return Dataset(IN_MEMORY, unit, _digest(train, val), splits, Path(), shape=shape)


def _digest(*parts: Rows) -> str:
    """Return a SHA-256 of the values and of how they are split."""
    found = hashlib.sha256()
    for part in parts:
        found.update(repr(part.shape).encode())
        for start in range(0, len(part), BLOCK):
            found.update(part[start : start + BLOCK].tobytes())
    return found.hexdigest()
