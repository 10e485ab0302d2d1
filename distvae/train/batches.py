"""Batches of rows on the device of training, with the draws that belong to them."""

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.data.dataset import Rows
from distvae.interface import Batch
from distvae.numerics.noise import Noise

BLOCK = 1024
"""The number of rows that are looked at together."""

Numbers = NDArray[np.int64]
"""Numbers of rows."""


class BatchReader:
    """Reads rows of a dataset onto a device."""

    def __init__(self, seed: int, device: torch.device, may_be_missing: bool) -> None:
        self.seed, self.device, self.may_be_missing = seed, device, may_be_missing

    def read(self, data: Rows, rows: Numbers, epoch: int) -> tuple[Batch, Noise]:
        """Return some rows on the device, and the draws that belong to them in an epoch."""
        row = torch.from_numpy(rows)
        batch = self._values(data, row)
        return batch, Noise(self.seed, epoch, row.to(self.device, non_blocking=True))

    def _values(self, data: Rows, row: torch.Tensor) -> Batch:
        x = torch.from_numpy(data[row.numpy()]).to(self.device, non_blocking=True)
        if not self.may_be_missing:
            return Batch(x, row)
        observed = ~x.isnan()
        return Batch(x.where(observed, 0.0), row, observed)


def has_missing(rows: Rows) -> bool:
    """Return whether any value of some rows is missing."""
    return any(np.isnan(rows[i : i + BLOCK]).any() for i in range(0, len(rows), BLOCK))
