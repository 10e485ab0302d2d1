"""Teams: the workers of one training, their devices, and sums over all workers.

A sum is bit-identical on every worker, and in every run with the same number of workers.
"""

import json
import os
import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, TypedDict, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distvae.files.refusal import Refusal
from distvae.system import (
    HOST,
    LOOPBACK,
    listen_on_interface_of,
    own_address_towards,
    stay_on_loopback,
)

T = TypeVar("T")
CPU = torch.device("cpu")
Store: TypeAlias = Any
"""A store of torch.distributed. Torch's type stubs lack its public name."""
TIMEOUT = timedelta(minutes=30)
"""The longest wait of workers for each other, for example while worker 0 writes a checkpoint.
NCCL's default limit is ten minutes.
"""


class WorkerLost(Exception):
    """Another worker has ended or is unreachable."""


class Team(Protocol):
    """Workers that train one model. All of them make the same calls in the same order."""

    rank: int
    size: int

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all workers. Tensors must not require gradients."""

    def barrier(self) -> None:
        """Wait until all workers have arrived."""

    def gather(self, value: T, /) -> list[T]:
        """Return the (small) values of all workers, in order of rank. They are sent as JSON."""

    def close(self) -> None:
        """Leave the team. No other call may follow."""


class Alone:
    """A team of one worker."""

    rank, size = 0, 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing: each tensor is its own sum."""

    def barrier(self) -> None:
        """Return at once."""

    def gather(self, value: T, /) -> list[T]:
        """Return the value in a list."""
        return [value]

    def close(self) -> None:
        """Do nothing."""


ALONE = Alone()


class Workers:
    """Workers connected by torch.distributed: by NCCL if each worker has its own GPU, else gloo."""

    def __init__(self, owns_connection: bool, device: torch.device = CPU) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.owns_connection = owns_connection
        """Whether this program set up torch.distributed, and must shut it down."""
        can_use_nccl = have_distinct_gpus(self.gather(gpu_id(device))) and dist.is_nccl_available()
        with network_errors():
            self.nccl = dist.new_group(backend="nccl", timeout=TIMEOUT) if can_use_nccl else None

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over all workers, with one all-reduce per type and device."""
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
        """Return the values of all workers, in order of rank."""
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
        """Shut torch.distributed down, if this program set it up."""
        if self.owns_connection and dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def network_errors() -> Iterator[None]:
    """Turn network errors into `WorkerLost`, because they mean that another worker has ended.

    Errors of this worker's GPU pass unchanged. They can appear here, because a GPU reports errors
    late.
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
    """Set up torch.distributed from the environment of torchrun."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise Refusal(
            f"WORLD_SIZE: set, but not {', '.join(missing)}; torchrun sets them all, and one"
            " process needs none"
        )
    with _rendezvous() as arguments:
        dist.init_process_group("gloo", **arguments)


class _Rendezvous(TypedDict, total=False):
    """Arguments of `init_process_group` for the rendezvous."""

    store: Store
    rank: int
    world_size: int


@contextmanager
def _rendezvous() -> Iterator[_Rendezvous]:
    """Yield the rendezvous of the workers: the launcher's store, or a store on loopback.

    Torch's default store listens on every address of the machine, where anybody could set and
    delete keys.
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
    """Return a store for `size` workers at an address; worker 0 passes its listening socket."""
    file = listener.detach() if listener else None
    kind = dist.TCPStore  # type: ignore[attr-defined]
    return kind(host, port, size, file is not None, timeout=TIMEOUT, master_listen_fd=file)


GpuId: TypeAlias = list[str]
"""The unique id of a GPU, and its slot in a machine, which the instances of a divided GPU (MIG)
share. Empty for another device. A list, because workers send it as JSON.
"""


def gpu_id(device: torch.device) -> GpuId:
    """Return the id of a worker's GPU, or [] for another device."""
    if device.type != "cuda":
        return []
    found = torch.cuda.get_device_properties(device)
    slot = [str(getattr(found, f"pci_{part}_id")) for part in ("domain", "bus", "device")]
    return [str(found.uuid), f"{platform.node()} {':'.join(slot)}"]


def count_sharing(device: torch.device, gather: Callable[[GpuId], list[GpuId]]) -> int:
    """Return the number of workers on this worker's device. All workers call this together."""
    own = gpu_id(device)
    return gather(own).count(own)


def have_distinct_gpus(gpu_ids: Sequence[GpuId]) -> bool:
    """Return whether every worker has its own GPU, which NCCL requires."""
    if not all(gpu_ids):
        return False
    return all(len(set(names)) == len(names) for names in zip(*gpu_ids, strict=True))


def select_device(name: str, assigned: Sequence[int] | None = None) -> torch.device:
    """Return the device of this process; see `choose_device`."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return choose_device(name, visible, assigned, int(os.environ.get("LOCAL_RANK", "0")))


def choose_device(
    name: str, visible: int, assigned: Sequence[int] | None = None, rank: int = 0
) -> torch.device:
    """Return the device for a setting of `train.device`, if torch sees `visible` CUDA devices.

    Under Ray it is the first device that was assigned to this process, or the CPU if none was.
    Without Ray (`assigned` is None) the processes of a machine take the devices in turns, by their
    local ranks.
    """
    if name == "cpu":
        return CPU
    if assigned is not None and not assigned:
        return _cpu_instead(
            name, "Ray assigned this process no GPU", "--gpus-per-worker 1 or --gpus-per-trial 1"
        )
    if not visible:
        return _cpu_instead(name, "torch finds no CUDA device here", "cpu or auto")
    index = rank % visible if assigned is None else assigned[0]
    if index >= visible:
        raise Refusal(
            f"train.device: Ray assigned this process GPU {index}, but torch finds {visible} here; "
            "as many as given to 'ray start --num-gpus' expected, or train.device=cpu"
        )
    return torch.device("cuda", index)


def _cpu_instead(name: str, reason: str, expected: str) -> torch.device:
    """Return the CPU, or raise `Refusal` if the setting asks for a GPU."""
    if name == "cuda":
        raise Refusal(f"train.device: 'cuda', but {reason}; {expected} expected")
    return CPU
