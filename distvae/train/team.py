"""Teams: the workers of one training add up tensors over torch.distributed.

A sum has the same bits on every worker, and from run to run with as many workers.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, TypedDict, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distvae.files.refusal import Refusal
from distvae.system.interfaces import listen_on_interface_of, own_address_towards
from distvae.system.loopback import HOST, LOOPBACK, stay_on_loopback
from distvae.train.devices import CPU, gpu_id, have_distinct_gpus

T = TypeVar("T")
Store: TypeAlias = Any
"""A store of torch, whose stubs leave its public names out."""
TIMEOUT = timedelta(minutes=30)
"""How long workers wait for each other, for example while one writes a checkpoint. NCCL's own
limit is ten minutes.
"""


class WorkerLost(Exception):
    """Another worker has ended or is out of reach."""


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


class Workers:
    """Workers that torch.distributed connects: by NCCL if each has a GPU of its own, else gloo."""

    def __init__(self, owns_connection: bool, device: torch.device = CPU) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.owns_connection = owns_connection
        """Whether this program set up torch.distributed, and has to end it."""
        can_use_nccl = have_distinct_gpus(self.gather(gpu_id(device))) and dist.is_nccl_available()
        with network_errors():
            self.nccl = dist.new_group(backend="nccl", timeout=TIMEOUT) if can_use_nccl else None

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors in one exchange for each type."""
        groups: dict[object, list[Tensor]] = {}
        for tensor in tensors:
            groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for group in groups.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            nccl = self.nccl if flat.is_cuda else None
            if nccl is None:
                flat = flat.to(CPU)
            with network_errors():
                dist.all_reduce(flat, group=nccl)
            parts = flat.split([tensor.numel() for tensor in group])
            for tensor, part in zip(group, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def barrier(self) -> None:
        """Wait until all workers have arrived."""
        with network_errors():
            dist.barrier()

    def gather(self, value: T, /) -> list[T]:
        """Return the small values of all workers, in order of rank."""
        message = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor([len(message)])
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        with network_errors():
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


@contextmanager
def network_errors() -> Iterator[None]:
    """Raise `WorkerLost` for errors of the network, which mean that another worker has ended.

    Errors of this worker's GPU show up here too, because a GPU reports them late; they stay as they
    are.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        raise WorkerLost(f"another worker has ended or is out of reach: {error}") from error


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
    return Workers(owns_connection, device)


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

    store: Store
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
    elif own_address := own_address_towards(host):
        listen_on_interface_of(own_address)
    if host not in LOOPBACK or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        yield {}
        return
    with socket.create_server((HOST, port)) if rank == 0 else nullcontext() as listener:
        store = store_at(HOST, port, size, listener)
    yield {"store": store, "rank": rank, "world_size": size}


def store_at(host: str, port: int, size: int, listener: socket.socket | None) -> Store:
    """Return the store of so many workers at an address, where the first of them listens."""
    file = listener.detach() if listener else None
    kind = dist.TCPStore  # type: ignore[attr-defined]
    return kind(host, port, size, file is not None, timeout=TIMEOUT, master_listen_fd=file)
