"""The metrics of an epoch: from the validation rows, and from models and E-steps."""

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
from distvae.numerics.noise import VALIDATION
from distvae.numerics.rows import Bands, HeldRows, Lanes, RowNumbers, divide
from distvae.train.batches import BLOCK, BatchReader
from distvae.train.step import add, assess

Watch = Callable[[RowNumbers, Posterior], None]
"""A function that is called with validation rows and their posteriors."""


class Sample:
    """One worker's share of the validation rows that are assessed after each epoch.

    The validation rows are the same after every epoch, for any number of workers. With
    `train.val_rows`, they are the first rows of a fixed random order with equally many rows from
    each lane.
    """

    def __init__(self, config: Train, rows: int, rank: int, size: int, keeps: bool) -> None:
        self.seed, self.rows, self.keeps = config.seed, rows, keeps
        self.count = rows if config.val_rows is None else min(config.val_rows, rows)
        self.lanes, self.rank, self.size = divide(rows, config.batch), rank, size

    def parts(self) -> Iterator[RowNumbers]:
        """Yield this worker's share of the sample in blocks: at least one block, maybe empty."""
        if self.count == self.rows:
            yield from self.every()
        else:
            yield from np.split(self.chosen, range(BLOCK, len(self.chosen), BLOCK))

    @cached_property
    def chosen(self) -> RowNumbers:
        """The rows of this worker in the sample."""
        held = self.lanes.held(self.rank, self.size)
        return np.sort(held.order(self.seed, VALIDATION).rows(0, self.count))

    def every(self) -> Iterator[RowNumbers]:
        """Yield this worker's share of all validation rows in blocks."""
        held = self._held()
        for first in range(0, max(len(held), 1), BLOCK):
            yield held.part(slice(first, first + BLOCK))

    def _held(self) -> HeldRows:
        """Return this worker's share of all rows: every `size`-th row if no worker holds rows."""
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
    """Return sums over the validation rows, with fixed draws."""
    total: Sums = {}
    for part in parts:
        batch, noise = reader.read(val, part, VALIDATION)
        q = estep.infer(model, batch, 0)
        add(total, assess(model, q, batch, noise))
        if watch:
            watch(part, q)
    return total


def ranks_epochs(model: Module, may_be_missing: bool) -> bool:
    """Return whether a larger objective means a better epoch. It does not if missing values are
    imputed.
    """
    return not (may_be_missing and isinstance(model, Completes) and model.completes)


def means(total: Sums, rows: int) -> dict[str, float]:
    """Return means over rows. The mean sparsity is over the rows with a finite sparsity."""
    averages = {}
    for name, value in total.items():
        count = total["sparse_rows"] if name == "hoyer" else rows
        averages[name] = float(value / count)
    return averages


def telemetry(parts: Iterable[Module], total: Sums, rows: int) -> dict[str, float]:
    """Return the metrics of models and E-steps, from an epoch's sums over `rows` rows."""
    found: dict[str, float] = {}
    for part in parts:
        if isinstance(part, Reports):
            found |= part.telemetry(total, rows)
    return found
