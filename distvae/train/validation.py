"""Figures of an epoch: of the validation rows, and those that models and E-steps add."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np
import torch

from distvae.config import Train
from distvae.data.dataset import Rows
from distvae.interface import (
    AnyEStep,
    AnyModel,
    Completes,
    Module,
    Posterior,
    Reports,
    Sums,
)
from distvae.numerics.bands import Bands, divide
from distvae.numerics.lanes import HeldRows, Lanes, RowNumbers
from distvae.numerics.noise import VALIDATION
from distvae.train.batches import BLOCK, BatchReader
from distvae.train.step import add, assess

Watch = Callable[[RowNumbers, Posterior], None]
"""A function that is called with some validation rows and their posteriors."""


class Sample:
    """One worker's part of the validation rows that are looked at after each epoch.

    They are the same ones every time, and with any number of workers. Where they are not all rows,
    they are the first ones in an order of their own, which takes as many from each lane.
    """

    def __init__(self, config: Train, rows: int, rank: int, size: int, keeps: bool) -> None:
        self.seed, self.rows, self.keeps = config.seed, rows, keeps
        self.count = rows if config.val_rows is None else min(config.val_rows, rows)
        self.lanes, self.rank, self.size = divide(rows, config.batch), rank, size

    def parts(self) -> Iterator[RowNumbers]:
        """Yield this worker's part of the sample in blocks: one at least, which may be empty."""
        if self.count == self.rows:
            yield from self.every()
        else:
            yield from np.split(self.chosen, range(BLOCK, len(self.chosen), BLOCK))

    @cached_property
    def chosen(self) -> RowNumbers:
        """This worker's rows of the sample."""
        held = self.lanes.held(self.rank, self.size)
        return np.sort(held.order(self.seed, VALIDATION).rows(0, self.count))

    def every(self) -> Iterator[RowNumbers]:
        """Yield this worker's part of all rows in blocks."""
        held = self._held()
        for first in range(0, max(len(held), 1), BLOCK):
            yield held.part(slice(first, first + BLOCK))

    def _held(self) -> HeldRows:
        """Return this worker's part of all rows: every `size`-th where rows have no holder."""
        stay = self.keeps or isinstance(self.lanes, Bands)
        lanes = self.lanes if stay else Lanes(self.rows, self.size)
        return lanes.held(self.rank, self.size)


@torch.no_grad()
def assess_rows(
    model: AnyModel,
    estep: AnyEStep,
    reader: BatchReader,
    val: Rows,
    parts: Iterable[RowNumbers],
    watch: Watch | None = None,
) -> Sums:
    """Return sums over blocks of the validation rows, with fixed draws."""
    total: Sums = {}
    for part in parts:
        batch, noise = reader.read(val, part, VALIDATION)
        q = estep.infer(model, batch, 0)
        add(total, assess(model, q, batch, noise))
        if watch:
            watch(part, q)
    return total


def ranks_epochs(model: Module, may_be_missing: bool) -> bool:
    """Return whether a larger objective means a better epoch: not where missing values are
    completed.
    """
    return not (may_be_missing and isinstance(model, Completes) and model.completes)


def means(total: Sums, rows: int) -> dict[str, float]:
    """Return means over rows; that of the sparsity is over the rows that have one."""
    averages = {}
    for name, value in total.items():
        count = total["sparse_rows"] if name == "hoyer" else rows
        averages[name] = float(value / count)
    return averages


def telemetry(parts: Iterable[Module], total: Sums, rows: int) -> dict[str, float]:
    """Return the figures that models and E-steps add, from an epoch's sums over so many rows."""
    found: dict[str, float] = {}
    for part in parts:
        if isinstance(part, Reports):
            found |= part.telemetry(total, rows)
    return found
