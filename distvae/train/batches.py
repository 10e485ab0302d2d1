"""Batches of rows on the training device, with their random draws."""

import math
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.config import Config
from distvae.data.dataset import Rows, recorded_facts
from distvae.engines.device import free_memory
from distvae.files.refusal import Refusal
from distvae.interface import Batch, TransformsInput
from distvae.numerics.noise import Draw, Noise, noise_of_part
from distvae.numerics.rows import (
    HeldRows,
    Lanes,
    Order,
    RowNumbers,
    Share,
    divide,
    find_in_order,
)

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
        return self.order(first * self.size, min(last * self.size, self.rows))


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
        x = torch.from_numpy(data[rows]).to(self.device, non_blocking=True)
        noise = Noise(self.seed, epoch, row.to(self.device, non_blocking=True))
        return self._observed(x, row), noise

    def keep(self, train: Rows, share: Share, together: int, estep: object, workers: int) -> None:
        """Prepare for training on a worker's share of these rows: `together` is the number of
        batches that are read at a time, `workers` the number of workers that share the device.
        """

    def begin_epoch(self, epoch: int, batches: Batches) -> None:
        """Prepare for the batches of an epoch."""

    def advance(self, batch: int) -> None:
        """Prepare for the batches from number `batch` on."""

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
        if part is None:
            return None
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
        """The worker's rows on the device."""
        self.held: HeldRows | None = None
        """The rows that stay with this worker; None if all rows may come."""
        self.together, self.epoch = 1, 0
        self.batches: Batches | None = None
        self.numbered: dict[int, Numbered] = {}
        """Row numbers of batches that are read together, by the number of the first batch."""
        self.chunks: list[Chunk] = []

    def keep(self, train: Rows, share: Share, together: int, estep: object, workers: int) -> None:
        """Copy the worker's rows to the device, if the rows of each worker on the device fit."""
        self.train, self.together, self.estep = train, together, estep
        self.held = share if isinstance(share, HeldRows) and share.size > 1 else None
        numbers = np.arange(len(train)) if self.held is None else self.held.part(slice(None))
        width = math.prod(train.shape[1:])
        if workers * len(numbers) * width * train.dtype.itemsize > SHARE * free_memory(self.device):
            return
        with suppress(torch.OutOfMemoryError):  # another process took the memory meanwhile
            first = self._to_device(train[numbers[:1]])
            copied = first.new_empty(len(numbers), *train.shape[1:])
            for start in range(0, len(numbers), BLOCK):
                part = slice(start, start + BLOCK)
                copied[part] = self._to_device(train[numbers[part]])
            self.resident = copied

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
        if first not in self.numbered:  # copied to the device for many chunks at once
            self.numbered = self._copy_numbers(batches, first)
        rows, numbers = self.numbered[first]
        if self.resident is None:
            x = self._to_device(self.train[rows])
        else:
            places = numbers if self.held is None else self.held.index(numbers)
            x = self.resident.index_select(0, places)
        batch = self._observed(x, torch.from_numpy(rows))
        if isinstance(self.estep, TransformsInput):
            batch = batch._replace(seen=self.estep.transform(batch))
        return Chunk(first, last, rows, batch, Noise(self.seed, self.epoch, numbers), {})

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


def batch_reader(seed: int, device: torch.device, may_be_missing: bool) -> BatchReader:
    """Return the reader of batches for a device."""
    kind = BatchReader if device.type == "cpu" else DeviceReader
    return kind(seed, device, may_be_missing)
