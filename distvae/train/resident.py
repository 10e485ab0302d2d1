"""Read rows to a GPU: the whole dataset if it fits, and the next few batches together, in order.

A step then takes its rows as a view, without copying. The encoder's inputs for these batches are
computed together too, and so are their draws when a step first requests them.
"""

import math
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.data.dataset import Rows
from distvae.interface import Batch, TransformsInput
from distvae.numerics.noise import Draw, Noise, noise_of_part
from distvae.numerics.rows import RowNumbers, find_in_order
from distvae.train.batches import BLOCK, Batches, BatchReader

SHARE = 0.5
"""The share of a device's free memory that data may take."""
READ_TOGETHER = 8192
"""Rows that are read together if the E-step does not search blocks; at least one batch."""
NUMBERED = 2**20
"""Rows, over all workers, whose row numbers are copied to the device together."""


class Chunk(NamedTuple):
    """Consecutive batches that were read together."""

    first: int
    """The number of the first batch."""
    last: int
    """The number of the last batch, plus one."""
    rows: RowNumbers
    batch: Batch
    noise: Noise
    drawn: dict[Draw, Tensor]

    def find(self, rows: RowNumbers) -> tuple[Batch, Noise] | None:
        """Return rows as views, or None unless they are a slice of the chunk."""
        part = find_in_order(self.rows, rows)
        return None if part is None else self._part(part)

    def _part(self, part: slice) -> tuple[Batch, Noise]:
        return self.batch.part(part), noise_of_part(self.noise, part, self.drawn)


class Numbered(NamedTuple):
    """Row numbers, on the host and on the device."""

    rows: RowNumbers
    on_device: Tensor


class DeviceReader(BatchReader):
    """Reads rows to a GPU."""

    def __init__(self, seed: int, device: torch.device, may_be_missing: bool) -> None:
        super().__init__(seed, device, may_be_missing)
        self.train: Rows | None = None
        self.estep: object = None
        self.resident: Tensor | None = None
        self.together, self.epoch = 1, 0
        self.batches: Batches | None = None
        self.numbered: dict[int, Numbered] = {}
        """Row numbers of batches that are read together, by the number of the first batch."""
        self.chunks: list[Chunk] = []

    def keep(self, train: Rows, together: int, estep: object, workers: int) -> None:
        """Copy the training rows to the device, if a copy for each worker on the device fits."""
        self.train, self.together, self.estep = train, together, estep
        size = math.prod(train.shape) * train.dtype.itemsize
        if workers * size <= SHARE * free_memory(self.device):
            with suppress(torch.OutOfMemoryError):  # another process took the memory meanwhile
                self.resident = self._copied(train)

    def _copied(self, train: Rows) -> Tensor:
        """Return all rows on the device."""
        copied = self._to_device(train[np.arange(1)]).new_empty(train.shape)
        for rows in np.split(np.arange(len(train)), range(BLOCK, len(train), BLOCK)):
            copied[rows[0] : rows[-1] + 1] = self._to_device(train[rows])
        return copied

    def begin_epoch(self, epoch: int, batches: Batches) -> None:
        """Prepare for the batches of an epoch."""
        self.epoch, self.batches, self.chunks, self.numbered = epoch, batches, [], {}

    def advance(self, batch: int) -> None:
        """Read the chunk that contains a batch, and the chunk after it."""
        if any(chunk.first <= batch < chunk.last for chunk in self.chunks[:1]):
            return
        assert self.batches is not None
        self.chunks = [chunk for chunk in self.chunks if chunk.last > batch]
        while len(self.chunks) < 2 and batch < len(self.batches):
            last = min(batch - batch % self.together + self.together, len(self.batches))
            if not any(chunk.first <= batch < chunk.last for chunk in self.chunks):
                self.chunks.append(self._chunk(self.batches, batch, last))
            batch = last

    def _chunk(self, batches: Batches, first: int, last: int) -> Chunk:
        assert self.train is not None
        rows, numbers = self._numbered(batches, first)
        if self.resident is None:
            x = self._to_device(self.train[rows])
        else:
            x = self.resident.index_select(0, numbers)
        batch = self._observed(x, torch.from_numpy(rows))
        if isinstance(self.estep, TransformsInput):
            batch = batch._replace(seen=self.estep.transform(batch))
        return Chunk(first, last, rows, batch, Noise(self.seed, self.epoch, numbers), {})

    def _numbered(self, batches: Batches, first: int) -> Numbered:
        """Return the row numbers of this worker in the chunk that starts at batch `first`.

        Row numbers are copied to the device for many chunks at once.
        """
        if first not in self.numbered:
            self.numbered = self._copy_numbers(batches, first)
        return self.numbered[first]

    def _copy_numbers(self, batches: Batches, first: int) -> dict[int, Numbered]:
        """Copy the row numbers of chunks from a batch on; return them by first batch."""
        together = self.together
        begin = first - first % together
        groups = max(NUMBERED // (together * batches.size), 1)
        end = min(begin + groups * together, len(batches))
        bounds = [first, *range(begin + together, end, together), end]
        rows = [batches.part(*pair) for pair in pairwise(bounds)]
        on_device = self._to_device(np.concatenate(rows)).split([len(part) for part in rows])
        both = map(Numbered, rows, on_device)
        return dict(zip(bounds, both, strict=False))

    def read(self, data: Rows, rows: RowNumbers, epoch: int) -> tuple[Batch, Noise]:
        """Return rows on the device, and their random draws in an epoch."""
        if data is self.train and epoch == self.epoch:
            for chunk in self.chunks:
                if found := chunk.find(rows):
                    return found
        return super().read(data, rows, epoch)

    def _to_device(self, values: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def free_memory(device: torch.device) -> float:
    """Return the free bytes of a device, or infinity if it is not a CUDA device."""
    if device.type != "cuda":
        return float("inf")
    return float(torch.cuda.mem_get_info(device)[0])


def batch_reader(seed: int, device: torch.device, may_be_missing: bool) -> BatchReader:
    """Return the reader of batches for a device."""
    kind = BatchReader if device.type == "cpu" else DeviceReader
    return kind(seed, device, may_be_missing)
