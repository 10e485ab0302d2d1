"""How the workers of one training add up their tensors: alone, beside each other on one machine, or over a network.

Sums have the same bits on every worker, and the same from run to run. Workers on one machine add in order of rank;
over a network the order is that of the collective library, which differs with three workers or more.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from distvae.refusal import Refusal
from distvae.train.shared import LINE, Barrier, WorkerLost, shared

__all__ = ["ALONE", "Alone", "Beside", "Team", "Together", "WorkerLost", "of_environment"]

CPU = torch.device("cpu")


class Team(Protocol):
    """Workers that train one model; all of them make the same calls in the same order."""

    rank: int
    size: int

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all workers in place of tensors that require no gradient."""

    def part(self, count: int) -> slice:
        """Which of so many numbers this worker takes care of for all."""

    def scatter(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """This worker's part of the sum over all workers of each of some tensors of one type, until the next call."""

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Put every worker's part of some tensors of one type, which are contiguous, in its place on all."""

    def barrier(self) -> None:
        """Wait until everyone is here."""

    def gather(self, value: Any) -> list[Any]:
        """The small values of all workers, in order of rank, told to each."""

    def close(self) -> None:
        """Leave; no call may follow."""


class Undivided:
    """Workers each of which takes care of everything."""

    def part(self, count: int) -> slice:
        """All numbers."""
        return slice(0, count)

    def scatter(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """All of the sums."""
        self.sum(tensors)
        return [tensor.reshape(-1) for tensor in tensors]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all workers in place of tensors that require no gradient."""
        raise NotImplementedError

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """All is in place."""


class Alone(Undivided):
    """One worker."""

    rank, size = 0, 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor is its own sum."""

    def barrier(self) -> None:
        """Everyone is here."""

    def gather(self, value: Any) -> list[Any]:
        """The value."""
        return [value]

    def close(self) -> None:
        """Nothing to leave."""


ALONE = Alone()


class Together(Undivided):
    """Workers anywhere, over what torch.distributed has set up; closing ends that where this program began it."""

    def __init__(self, ours: bool) -> None:
        self.rank, self.size, self.ours = dist.get_rank(), dist.get_world_size(), ours
        self.device = torch.device("cuda") if "nccl" in dist.get_backend_config() else CPU

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """In one exchange for each type."""
        for group in _alike(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group]).to(self.device)
            with _heard():
                dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in group])
            _copy([part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)], group)

    def barrier(self) -> None:
        """Wait until everyone is here."""
        with _heard():
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """The small values of all workers, in order of rank, told to each."""
        values: list[Any] = [None] * self.size
        with _heard():
            dist.all_gather_object(values, value)
        return values

    def close(self) -> None:
        """End the connections."""
        if self.ours and dist.is_initialized():
            dist.destroy_process_group()


class Room(NamedTuple):
    """Where some tensors are added up: all of it views of memory that the workers share."""

    mine: list[Tensor]
    """What this worker adds, in the shapes of the tensors."""
    addends: list[tuple[Tensor, ...]]
    """What all workers add to each of the parts that are this one's to add up."""
    parts: list[Tensor]
    """The sums of these."""
    total: list[Tensor]
    """All sums, in the shapes of the tensors."""


class Beside:
    """Workers on one machine, through shared memory: each adds up its part of every tensor for all."""

    def __init__(self, together: Together, meeting: Barrier) -> None:
        self.rank, self.size = together.rank, together.size
        self.together, self.meeting = together, meeting
        self.slots = torch.empty(self.size + 1, 0, dtype=torch.uint8)  # one for each worker, and one for the sum
        self.rooms: dict[object, Room] = {}

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """In one exchange for each type."""
        for group in _alike(tensors):
            self._add_up(group)
            self._tell(group)

    def scatter(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """This worker's part of the sums, in memory that the next call uses again."""
        return self._add_up(tensors).parts

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Nobody writes before all have read what was told before."""
        room = self._room(tensors)
        self.meeting.wait()
        _copy([tensor.view(-1)[self.part(tensor.numel())] for tensor in tensors], room.parts)
        self._tell(tensors)

    def _add_up(self, tensors: Sequence[Tensor]) -> Room:
        """Nobody adds before all have read the sums before these."""
        room = self._room(tensors)
        _copy(tensors, room.mine)
        self.meeting.wait()
        for part, (one, other, *more) in zip(room.parts, room.addends, strict=True):
            torch.add(one, other, out=part)
            for addend in more:
                part.add_(addend)
        return room

    def _tell(self, tensors: Sequence[Tensor]) -> None:
        self.meeting.wait()
        _copy(self._room(tensors).total, tensors)

    def part(self, count: int) -> slice:
        """As many for each worker."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def _room(self, tensors: Sequence[Tensor]) -> Room:
        if not tensors:
            return Room([], [], [], [])
        dtype, shapes = tensors[0].dtype, tuple(tensor.shape for tensor in tensors)
        if (dtype, shapes) not in self.rooms:
            self._reserve(dtype.itemsize * sum(map(math.prod, shapes)))
            self.rooms[dtype, shapes] = self._furnish(dtype, shapes)
        return self.rooms[dtype, shapes]

    def _furnish(self, dtype: torch.dtype, shapes: Sequence[torch.Size]) -> Room:
        counts = [math.prod(shape) for shape in shapes]
        *addends, total = (slot.split(counts) for slot in self.slots.view(dtype)[:, : sum(counts)])

        def parts(flat: Sequence[Tensor]) -> list[Tensor]:
            return [tensor[self.part(len(tensor))] for tensor in flat]

        def shaped(flat: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.view(shape) for tensor, shape in zip(flat, shapes, strict=True)]

        theirs = list(zip(*(parts(flat) for flat in addends), strict=True))
        return Room(shaped(addends[self.rank]), theirs, parts(total), shaped(total))

    def _reserve(self, needed: int) -> None:
        """Make the slots so many bytes wide, unless they are."""
        width = -(-needed // LINE) * LINE
        if width > self.slots.shape[1]:
            memory = shared(self.rank, self.gather, (self.size + 1) * width)
            if memory is None:
                raise MemoryError(f"no room for {(self.size + 1) * width:,} bytes that {self.size} workers share")
            self.slots = torch.frombuffer(memory, dtype=torch.uint8).view(self.size + 1, width)
            self.rooms.clear()

    def barrier(self) -> None:
        """Wait until everyone is here."""
        self.meeting.wait()

    def gather(self, value: Any) -> list[Any]:
        """The small values of all workers, in order of rank, told to each."""
        return self.together.gather(value)

    def close(self) -> None:
        """Be waited for no more."""
        self.meeting.leave()
        self.together.close()


def of_environment(device: torch.device = CPU) -> Team:
    """The team that torchrun or Ray Train has set up for this process; alone where neither did."""
    ours = not dist.is_initialized()
    size = int(os.environ.get("WORLD_SIZE", "1")) if ours else dist.get_world_size()
    if size == 1:
        return ALONE
    if ours:
        _connect(device)
    together = Together(ours)
    meeting = Barrier.among(together.rank, together.gather) if device.type == "cpu" else None
    return Beside(together, meeting) if meeting else together


def _connect(device: torch.device) -> None:
    """Meet the others; each on a GPU of its own if there are enough, as NCCL refuses to share one."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise Refusal(f"WORLD_SIZE: set, but not {', '.join(missing)}; torchrun sets them all, one process none")
    apart = False
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        apart = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
    dist.init_process_group("cpu:gloo,cuda:nccl" if apart else "gloo")


def _alike(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors by type and device."""
    groups: dict[object, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(groups.values())


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


@contextmanager
def _heard() -> Iterator[None]:
    """The network's errors are what remains of workers that have ended."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerLost(f"another worker has ended or is out of reach: {error}") from error
