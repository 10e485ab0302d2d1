"""Teams: the workers of one training add up tensors, on one machine or over a network.

Sums have the same bits on every worker, and from run to run. Workers on one machine add in order of
rank. Over a network the order is that of the collective library, which differs for three workers or
more.
"""

import json
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple, Protocol, TypedDict, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from distvae.files.refusal import Refusal
from distvae.train.devices import CPU, gpu_id, have_distinct_gpus
from distvae.train.loopback import HOST, LOOPBACK, stay_on_loopback
from distvae.train.shared_memory import LINE, Barrier, WorkerLost, share_memory

__all__ = ["ALONE", "Alone", "LocalTeam", "NetworkTeam", "Team", "WorkerLost", "join_team"]

T = TypeVar("T")


class Team(Protocol):
    """Workers that train one model. All of them make the same calls in the same order."""

    rank: int
    size: int

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, which require no gradient, by their sums over all workers."""

    def barrier(self) -> None:
        """Wait until all workers have arrived."""

    def gather(self, value: T, /) -> list[T]:
        """Return the small values of all workers, in order of rank. They travel as JSON."""

    def close(self) -> None:
        """Leave the team. No call may follow."""


class Alone:
    """A team of one worker."""

    rank, size = 0, 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Leave the tensors as they are: each is its own sum."""

    def barrier(self) -> None:
        """Return at once."""

    def gather(self, value: T, /) -> list[T]:
        """Return the value."""
        return [value]

    def close(self) -> None:
        """Do nothing."""


ALONE = Alone()


class NetworkTeam:
    """Workers anywhere, connected by torch.distributed."""

    def __init__(self, owns_connection: bool, device: torch.device = CPU) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.owns_connection = owns_connection
        """Whether this program set up torch.distributed, and has to end it."""
        can_use_nccl = have_distinct_gpus(self.gather(gpu_id(device))) and dist.is_nccl_available()
        self.nccl = dist.new_group(backend="nccl") if can_use_nccl else None

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors in one exchange for each type."""
        for group in _group_by_type(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            nccl = self.nccl if flat.is_cuda else None
            if nccl is None:
                flat = flat.to(CPU)
            with _network_errors():
                dist.all_reduce(flat, group=nccl)
            parts = flat.split([tensor.numel() for tensor in group])
            _copy([part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)], group)

    def barrier(self) -> None:
        """Wait until all workers have arrived."""
        with _network_errors():
            dist.barrier()

    def gather(self, value: T, /) -> list[T]:
        """Return the small values of all workers, in order of rank."""
        message = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor([len(message)])
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        with _network_errors():
            dist.all_gather(lengths, length)
            longest = int(max(lengths))
            padded = torch.nn.functional.pad(message, (0, longest - len(message)))
            messages = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(messages, padded)
        values = []
        for message, length in zip(messages, lengths, strict=True):
            values.append(json.loads(message[: int(length)].numpy().tobytes()))
        return values

    def close(self) -> None:
        """End the connections, if this program made them."""
        if self.owns_connection and dist.is_initialized():
            dist.destroy_process_group()


class SumBuffers(NamedTuple):
    """Views of shared memory in which tensors of given shapes are added up."""

    mine: list[Tensor]
    """What this worker adds, in the shapes of the tensors."""
    addends: list[Tensor]
    """What each worker adds to the share that this worker adds up."""
    share: Tensor
    """The sum of the addends."""
    total: list[Tensor]
    """The sums, in the shapes of the tensors."""


class LocalTeam:
    """Workers on one machine, which add up tensors in shared memory, each a share of them."""

    def __init__(self, network: NetworkTeam, meeting: Barrier) -> None:
        self.rank, self.size = network.rank, network.size
        self.network, self.meeting = network, meeting
        # one slot for each worker, and one for the sum
        self.slots = torch.empty(self.size + 1, 0, dtype=torch.uint8)
        self.buffers: dict[object, SumBuffers] = {}

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors in one exchange for each type.

        No worker writes a sum before all have read the one before.
        """
        for group in _group_by_type(tensors):
            buffers = self._buffers_for(group)
            _copy(group, buffers.mine)
            self.meeting.wait()
            torch.add(buffers.addends[0], buffers.addends[1], out=buffers.share)
            for addend in buffers.addends[2:]:
                buffers.share.add_(addend)
            self.meeting.wait()
            _copy(buffers.total, group)

    def _buffers_for(self, tensors: list[Tensor]) -> SumBuffers:
        dtype, shapes = tensors[0].dtype, tuple(tensor.shape for tensor in tensors)
        if (dtype, shapes) not in self.buffers:
            self._reserve(dtype.itemsize * sum(map(math.prod, shapes)))
            self.buffers[dtype, shapes] = self._new_buffers(dtype, shapes)
        return self.buffers[dtype, shapes]

    def _new_buffers(self, dtype: torch.dtype, shapes: Sequence[torch.Size]) -> SumBuffers:
        counts = [math.prod(shape) for shape in shapes]
        whole = sum(counts)
        flat = self.slots.view(dtype)[:, :whole]
        first, last = whole * self.rank // self.size, whole * (self.rank + 1) // self.size
        *addends, share = flat[:, first:last].unbind()
        mine = _split(flat[self.rank], shapes)
        total = _split(flat[self.size], shapes)
        return SumBuffers(mine, addends, share, total)

    def _reserve(self, needed: int) -> None:
        """Make the slots wide enough for a number of bytes."""
        width = -(-needed // LINE) * LINE
        if width <= self.slots.shape[1]:
            return
        memory = share_memory(self.rank, self.gather, (self.size + 1) * width)
        if memory is None:
            raise MemoryError(
                f"no room for {(self.size + 1) * width:,} bytes that {self.size} workers share"
            )
        self.slots = torch.frombuffer(memory, dtype=torch.uint8).view(self.size + 1, width)
        self.buffers.clear()

    def barrier(self) -> None:
        """Wait until all workers have arrived."""
        self.meeting.wait()

    def gather(self, value: T, /) -> list[T]:
        """Return the small values of all workers, in order of rank."""
        return self.network.gather(value)

    def close(self) -> None:
        """Leave the barrier and end the connections."""
        self.meeting.close()
        self.network.close()


def join_team(device: torch.device = CPU) -> Team:
    """Join the team that torchrun or Ray Train has set up, or return `ALONE` if there is none."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    owns_connection = not dist.is_initialized()
    if owns_connection:
        size = int(os.environ.get("WORLD_SIZE", "1"))
    else:
        size = dist.get_world_size()
    if size == 1:
        return ALONE
    if owns_connection:
        _connect()
    network = NetworkTeam(owns_connection, device)
    meeting = None if network.nccl else Barrier.among(network.rank, network.gather)
    return LocalTeam(network, meeting) if meeting else network


def _connect() -> None:
    """Set up torch.distributed from torchrun's environment."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise Refusal(
            f"WORLD_SIZE: set, but not {', '.join(missing)}; torchrun sets them all, and one"
            " process needs none"
        )
    with _rendezvous() as arguments:
        dist.init_process_group("gloo", **arguments)


class _Rendezvous(TypedDict, total=False):
    """Arguments that say where workers meet."""

    store: TCPStore
    rank: int
    world_size: int


@contextmanager
def _rendezvous() -> Iterator[_Rendezvous]:
    """Yield where the workers meet: at the launcher's store, or at one on loopback.

    Torch would open its store on every address of the machine, where anybody may set and delete
    keys.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    is_local = host in LOOPBACK or os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    if is_local:
        stay_on_loopback()
    if host not in LOOPBACK or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        yield {}
        return
    with socket.create_server((HOST, port)) if rank == 0 else nullcontext() as listener:
        file = listener.detach() if listener else None
        store = TCPStore(HOST, port, size, rank == 0, master_listen_fd=file)
    yield {"store": store, "rank": rank, "world_size": size}


def _group_by_type(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return the tensors by type and device."""
    groups: dict[object, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(groups.values())


def _split(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Return views of a flat tensor in some shapes."""
    parts = flat.split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


@contextmanager
def _network_errors() -> Iterator[None]:
    """Raise `WorkerLost` for errors of the network, which mean that another worker has ended."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerLost(f"another worker has ended or is out of reach: {error}") from error
