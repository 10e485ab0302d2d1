"""How the workers of one training add up their tensors: alone, beside each other on one machine, or
over a network.

Sums have the same bits on every worker, and the same from run to run. Workers on one machine add in
order of rank; over a network the order is that of the collective library, which differs with three
workers or more.
"""

import json
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from distvae.files.refusal import Refusal
from distvae.train.devices import CPU, gpu_id, have_distinct_gpus
from distvae.train.loopback import HOST, LOOPBACK, stay_on_loopback
from distvae.train.shared_memory import LINE, Barrier, WorkerLost, share_memory

__all__ = ["ALONE", "Alone", "LocalTeam", "NetworkTeam", "Team", "WorkerLost", "join_team"]


class Team(Protocol):
    """Workers that train one model; all of them make the same calls in the same order."""

    rank: int
    size: int

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all workers in place of tensors that require no gradient."""

    def barrier(self) -> None:
        """Wait until everyone is here."""

    def gather(self, value: Any) -> list[Any]:
        """The small values of all workers, in order of rank, told to each: whatever JSON can say,
        and no code.
        """

    def close(self) -> None:
        """Leave; no call may follow."""


class Alone:
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


class NetworkTeam:
    """Workers anywhere, over what torch.distributed has set up; closing ends that where this
    program began it.
    """

    def __init__(self, ours: bool, device: torch.device = CPU) -> None:
        self.rank, self.size, self.ours = dist.get_rank(), dist.get_world_size(), ours
        alone_on_it = have_distinct_gpus(self.gather(gpu_id(device)))
        self.nccl = (
            dist.new_group(backend="nccl") if alone_on_it and dist.is_nccl_available() else None
        )

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """In one exchange for each type."""
        for group in _alike(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            fast = self.nccl if flat.is_cuda else None
            flat = flat if fast else flat.to(CPU)
            with _heard():
                dist.all_reduce(flat, group=fast)
            parts = flat.split([tensor.numel() for tensor in group])
            _copy([part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)], group)

    def barrier(self) -> None:
        """Wait until everyone is here."""
        with _heard():
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """The small values of all workers, in order of rank, told to each."""
        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor([len(mine)])
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        with _heard():
            dist.all_gather(lengths, length)
            longest = int(max(lengths))
            texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(texts, torch.nn.functional.pad(mine, (0, longest - len(mine))))
        return [
            json.loads(text[:count].numpy().tobytes())
            for text, count in zip(texts, lengths, strict=True)
        ]

    def close(self) -> None:
        """End the connections."""
        if self.ours and dist.is_initialized():
            dist.destroy_process_group()


class SumBuffers(NamedTuple):
    """Where some tensors are added up: all of it views of memory that the workers share."""

    mine: list[Tensor]
    """What this worker adds, in the shapes of the tensors."""
    addends: list[Tensor]
    """What each worker adds to the share that is this one's to add up."""
    share: Tensor
    """The sum of these."""
    total: list[Tensor]
    """The sums, in the shapes of the tensors."""


class LocalTeam:
    """Workers on one machine, through shared memory: each adds up its share of the tensors for
    all.
    """

    def __init__(self, together: NetworkTeam, meeting: Barrier) -> None:
        self.rank, self.size = together.rank, together.size
        self.together, self.meeting = together, meeting
        self.slots = torch.empty(
            self.size + 1, 0, dtype=torch.uint8
        )  # one for each worker, and one for the sum
        self.rooms: dict[object, SumBuffers] = {}

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """In one exchange for each type; nobody writes a sum before all have read the one
        before.
        """
        for group in _alike(tensors):
            room = self._room(group)
            _copy(group, room.mine)
            self.meeting.wait()
            torch.add(room.addends[0], room.addends[1], out=room.share)
            for addend in room.addends[2:]:
                room.share.add_(addend)
            self.meeting.wait()
            _copy(room.total, group)

    def _room(self, tensors: list[Tensor]) -> SumBuffers:
        dtype, shapes = tensors[0].dtype, tuple(tensor.shape for tensor in tensors)
        if (dtype, shapes) not in self.rooms:
            self._reserve(dtype.itemsize * sum(map(math.prod, shapes)))
            self.rooms[dtype, shapes] = self._furnish(dtype, shapes)
        return self.rooms[dtype, shapes]

    def _furnish(self, dtype: torch.dtype, shapes: Sequence[torch.Size]) -> SumBuffers:
        counts = [math.prod(shape) for shape in shapes]
        flat = self.slots.view(dtype)[:, : sum(counts)]
        first, last = (sum(counts) * rank // self.size for rank in (self.rank, self.rank + 1))
        *addends, share = flat[:, first:last].unbind()
        mine, total = (
            [part.view(shape) for part, shape in zip(flat[slot].split(counts), shapes, strict=True)]
            for slot in (self.rank, self.size)
        )
        return SumBuffers(mine, addends, share, total)

    def _reserve(self, needed: int) -> None:
        """Make the slots so many bytes wide, unless they are."""
        width = -(-needed // LINE) * LINE
        if width > self.slots.shape[1]:
            memory = share_memory(self.rank, self.gather, (self.size + 1) * width)
            if memory is None:
                raise MemoryError(
                    f"no room for {(self.size + 1) * width:,} bytes that {self.size} workers share"
                )
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


def join_team(device: torch.device = CPU) -> Team:
    """The team that torchrun or Ray Train has set up for this process; alone where neither did."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    size = int(os.environ.get("WORLD_SIZE", "1")) if ours else dist.get_world_size()
    if size == 1:
        return ALONE
    if ours:
        _connect()
    together = NetworkTeam(ours, device)
    meeting = None if together.nccl else Barrier.among(together.rank, together.gather)
    return LocalTeam(together, meeting) if meeting else together


def _connect() -> None:
    """Meet the others."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise Refusal(
            f"WORLD_SIZE: set, but not {', '.join(missing)}; torchrun sets them all, one process"
            " none"
        )
    with _store() as place:
        dist.init_process_group("gloo", **place)


@contextmanager
def _store() -> Iterator[dict[str, Any]]:
    """Say where the workers meet: at the launcher's store, or on loopback, where they are all on
    this machine.

    Torch would open a store on every address of the machine, where anybody may set and delete its
    keys.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    near = host in LOOPBACK or os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    if near:
        stay_on_loopback()
    if host not in LOOPBACK or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        yield {}
        return
    with socket.create_server((HOST, port)) if rank == 0 else nullcontext() as listener:
        file = listener.detach() if listener else None
        store = TCPStore(HOST, port, size, rank == 0, master_listen_fd=file)
    yield {"store": store, "rank": rank, "world_size": size}


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
