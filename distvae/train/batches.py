"""Batches of rows on the device of training, with the draws that belong to them."""

from dataclasses import dataclass

import numpy as np
import torch

from distvae.config import Config
from distvae.data.dataset import Rows, recorded_facts
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.numerics.bands import divide
from distvae.numerics.lanes import Lanes, Order, RowNumbers
from distvae.numerics.noise import Noise

BLOCK = 1024
"""The number of rows that are looked at together."""


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch, and one worker's part of each."""

    order: Order
    rows: int
    """Rows of an epoch, of all workers."""
    size: int
    """Rows of a batch, of all workers."""

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def count(self, batch: int) -> int:
        """Return the rows of a batch, of all workers."""
        return min(self.size, self.rows - batch * self.size)

    def whole_until(self, batch: int, *multiples: int) -> int:
        """Return how many whole batches there are from one on, up to the next multiple of each
        number; or one, if it is not whole.
        """
        whole = self.rows // self.size - batch
        return max(1, min(whole, *(number - batch % number for number in multiples)))

    def part(self, first: int, last: int) -> RowNumbers:
        """Return the worker's rows of some batches, one batch after the other."""
        return self.order.rows(first * self.size, min(last * self.size, self.rows))


def split_rows(config: Config, rows: int, size: int) -> Lanes:
    """Return the lanes in which so many workers share the rows."""
    lanes, batch = divide(rows, config.train.batch), config.train.batch
    if size > lanes.count:
        raise Refusal(
            f"train.batch: {batch} can be shared by {lanes.count} workers at most, not by {size}"
        )
    if size > rows:
        raise Refusal(f"{rows} rows to train on, and {size} workers; at most one for each expected")
    return lanes


class BatchReader:
    """Reads rows of a dataset onto a device."""

    def __init__(self, seed: int, device: torch.device, may_be_missing: bool) -> None:
        self.seed, self.device, self.may_be_missing = seed, device, may_be_missing

    def read(self, data: Rows, rows: RowNumbers, epoch: int) -> tuple[Batch, Noise]:
        """Return some rows on the device, and the draws that belong to them in an epoch."""
        row = torch.from_numpy(rows)
        batch = self._values(data, row)
        return batch, Noise(self.seed, epoch, row.to(self.device, non_blocking=True))

    def keep(self, train: Rows, together: int, estep: object, workers: int) -> None:
        """Prepare for training on these rows, so many batches in a row, on a device that so many
        workers share: nothing on the host.
        """

    def begin_epoch(self, epoch: int, batches: Batches) -> None:
        """Prepare for the batches of an epoch: nothing on the host."""

    def advance(self, batch: int) -> None:
        """Prepare for the batches from this one on: nothing on the host."""

    def _values(self, data: Rows, row: torch.Tensor) -> Batch:
        x = torch.from_numpy(data[row.numpy()]).to(self.device, non_blocking=True)
        return self._observed(x, row)

    def _observed(self, x: torch.Tensor, row: torch.Tensor) -> Batch:
        """Return rows with zeros in the place of missing values, and where they are."""
        if not self.may_be_missing:
            return Batch(x, row)
        observed = ~x.isnan()
        return Batch(x.where(observed, 0.0), row, observed)


def has_missing(rows: Rows) -> bool:
    """Return whether any value of some rows is missing."""
    if facts := recorded_facts(rows):
        return facts.missing > 0
    return any(np.isnan(rows[i : i + BLOCK]).any() for i in range(0, len(rows), BLOCK))
