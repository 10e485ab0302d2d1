"""Arrays of a caller as a dataset. Only the rows that are read are copied."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import Array, Dataset, LazyRows, Rows

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
        for block in _blocks(part):
            found.update(block.tobytes())
    return found.hexdigest()


def _blocks(rows: Rows) -> Iterator[Array]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))
