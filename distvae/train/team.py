"""Teams: the workers of one training add up tensors, on one machine or over a network.

Sums have the same bits on every worker, and from run to run. Workers on one machine add in order of
rank. Over a network the order is that of the collective library, which differs for three machines
or more.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol, TypedDict, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from distvae.files.refusal import Refusal
from distvae.system.interfaces import listen_on_interface_of, own_address_towards
from distvae.system.loopback import HOST, LOOPBACK, stay_on_loopback
from distvae.train.devices import CPU
from distvae.train.local_team import LocalTeam, MachinesTeam
from distvae.train.network_team import NetworkTeam
from distvae.train.shared_memory import Barrier, WorkerLost, find_neighbours

__all__ = [
    "ALONE",
    "Alone",
    "LocalTeam",
    "MachinesTeam",
    "NetworkTeam",
    "Team",
    "WorkerLost",
    "join_team",
]

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
    if network.nccl:
        return network
    neighbours = find_neighbours(network.rank, network.gather)
    meeting = Barrier.among(neighbours) if neighbours else None
    if meeting is None:
        return network
    if len(meeting.neighbours.firsts) == 1:
        return LocalTeam(network, meeting)
    return MachinesTeam(network, meeting)


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
    elif own_address := own_address_towards(host):
        listen_on_interface_of(own_address)
    if host not in LOOPBACK or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        yield {}
        return
    with socket.create_server((HOST, port)) if rank == 0 else nullcontext() as listener:
        file = listener.detach() if listener else None
        store = TCPStore(HOST, port, size, rank == 0, master_listen_fd=file)
    yield {"store": store, "rank": rank, "world_size": size}
