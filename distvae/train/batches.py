"""Batches of rows on the training device, with their random draws."""

from dataclasses import dataclass

import numpy as np
import torch

from distvae.config import Config
from distvae.data.dataset import Rows, recorded_facts
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.numerics.noise import Noise
from distvae.numerics.rows import Lanes, Order, RowNumbers, divide

BLOCK = 1024
"""The number of rows that are read at a time."""


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch, and one worker's share of each batch."""

    order: Order
    rows: int
    """The rows of an epoch, over all workers."""
    size: int
    """The batch size, over all workers."""

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def count(self, batch: int) -> int:
        """Return the number of rows of a batch, over all workers."""
        return min(self.size, self.rows - batch * self.size)

    def whole_until(self, batch: int, *multiples: int) -> int:
        """Return the number of full batches from `batch` up to the next multiple of any number in
        `multiples`. If `batch` itself is not full, return 1.
        """
        whole = self.rows // self.size - batch
        return max(1, min(whole, *(number - batch % number for number in multiples)))

    def part(self, first: int, last: int) -> RowNumbers:
        """Return the worker's rows of batches `first` to `last` - 1, batch by batch."""
        return self.order.rows(first * self.size, min(last * self.size, self.rows))


def split_rows(config: Config, rows: int, size: int) -> Lanes:
    """Divide the rows into lanes that `size` workers can share, or refuse."""
    lanes, batch = divide(rows, config.train.batch), config.train.batch
    if size > lanes.count:
        raise Refusal(
            f"train.batch: {batch} can be shared by {lanes.count} workers at most, not by {size}"
        )
    if size > rows:
        raise Refusal(f"{rows} rows to train on, and {size} workers; at most one for each expected")
    return lanes


class BatchReader:
    """Reads rows of a dataset to a device. The methods for GPUs do nothing on the host."""

    def __init__(self, seed: int, device: torch.device, may_be_missing: bool) -> None:
        self.seed, self.device, self.may_be_missing = seed, device, may_be_missing

    def read(self, data: Rows, rows: RowNumbers, epoch: int) -> tuple[Batch, Noise]:
        """Return rows on the device, and their random draws in an epoch."""
        row = torch.from_numpy(rows)
        batch = self._values(data, row)
        return batch, Noise(self.seed, epoch, row.to(self.device, non_blocking=True))

    def keep(self, train: Rows, together: int, estep: object, workers: int) -> None:
        """Prepare for training on these rows: `together` is the number of batches that are read at
        a time, `workers` the number of workers that share the device.
        """

    def begin_epoch(self, epoch: int, batches: Batches) -> None:
        """Prepare for the batches of an epoch."""

    def advance(self, batch: int) -> None:
        """Prepare for the batches from number `batch` on."""

    def _values(self, data: Rows, row: torch.Tensor) -> Batch:
        x = torch.from_numpy(data[row.numpy()]).to(self.device, non_blocking=True)
        return self._observed(x, row)

    def _observed(self, x: torch.Tensor, row: torch.Tensor) -> Batch:
        """Return a batch with missing values set to zero, and the mask of observed values."""
        if not self.may_be_missing:
            return Batch(x, row)
        observed = ~x.isnan()
        return Batch(x.where(observed, 0.0), row, observed)


def has_missing(rows: Rows) -> bool:
    """Return whether any value of some rows is missing."""
    if facts := recorded_facts(rows):
        return facts.missing > 0
    return any(np.isnan(rows[i : i + BLOCK]).any() for i in range(0, len(rows), BLOCK))
