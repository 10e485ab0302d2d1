"""The process group of Ray Train's workers, who meet over a store that the first of them holds."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.train
import torch.distributed as dist
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig

from distvae.system.interfaces import listen_on_interface_of
from distvae.system.loopback import HOST, stay_on_loopback
from distvae.train.team import TIMEOUT, store_at


class SharedGpuBackend(Backend):  # type: ignore[misc]
    """A backend of Ray Train that sets up nothing; all workers of a machine see its GPUs."""

    share_cuda_visible_devices = True


class NoGroupConfig(TorchConfig):  # type: ignore[misc]
    """A configuration of Ray Train that leaves the process group to the workers.

    The store of Ray's own would listen on every address of the machine, where anybody may set and
    delete its keys.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        """Return the backend of Ray Train."""
        return SharedGpuBackend


@contextmanager
def process_group() -> Iterator[None]:
    """Make a process group of the workers of this training, and leave it at the end.

    A single worker needs none.
    """
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    if size == 1:
        yield
        return
    address = ray.util.get_node_ip_address()
    if address == HOST:  # Ray runs on this machine alone
        stay_on_loopback()
    else:
        listen_on_interface_of(address)
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())
    listener = socket.create_server((address, 0)) if rank == 0 else None
    host, port = broadcast_from_rank_zero(listener.getsockname()[:2] if listener else None)
    store = store_at(host, port, size, listener)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
