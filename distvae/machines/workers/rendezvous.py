"""The process group of Ray Train's workers, who meet over a key-value store in an actor of Ray.

Such an actor asks for Ray's token, as all of Ray does. The store that torch would open listens on
every address of a machine and lets anybody read, set and delete its keys.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import ray
import ray.exceptions
import ray.train
import torch.distributed as dist
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig
from torch._C._distributed_c10d import Store as TorchStore

from distvae.machines.ray_api import ActorHandle
from distvae.machines.workers.key_values import KeyValueActor
from distvae.system.interfaces import listen_on_interface_of
from distvae.system.loopback import HOST, stay_on_loopback
from distvae.train.team import TIMEOUT


class ActorStore(TorchStore):
    """A store of torch whose keys are in an actor."""

    def __init__(self, actor: ActorHandle) -> None:
        super().__init__()
        self.actor, self.limit = actor, TIMEOUT

    def set(self, key: str, value: str | bytes) -> None:
        """Set a key."""
        ray.get(self.actor.set.remote(key, _bytes(value)))

    def get(self, key: str) -> bytes:
        """Wait until a key has a value, and return it."""
        with _told_to_torch():
            return bytes(ray.get(self.actor.get.remote(key), timeout=self.limit.total_seconds()))

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys have values."""
        seconds = (timeout or self.limit).total_seconds()
        with _told_to_torch():
            ray.get([self.actor.get.remote(key) for key in keys], timeout=seconds)

    def add(self, key: str, amount: int) -> int:
        """Add to the number that a key has; return the sum."""
        return int(ray.get(self.actor.add.remote(key, amount)))

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        """Set a key that has the expected value; return its value afterwards."""
        answer = self.actor.compare_set.remote(key, _bytes(expected), _bytes(desired))
        return bytes(ray.get(answer))

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all keys have values."""
        return bool(ray.get(self.actor.has_all.remote(list(keys))))

    def delete_key(self, key: str) -> bool:
        """Delete a key; return whether it had a value."""
        return bool(ray.get(self.actor.delete.remote(key)))

    def num_keys(self) -> int:
        """Return the number of keys."""
        return int(ray.get(self.actor.count.remote()))

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long to wait for a key."""
        self.limit = timeout


@contextmanager
def _told_to_torch() -> Iterator[None]:
    """Raise the error of torch's own stores for a key without a value, after which torch goes on
    waiting.
    """
    try:
        yield
    except ray.exceptions.GetTimeoutError as error:
        raise dist.DistStoreError("no value yet") from error


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


class SharedGpuBackend(Backend):  # type: ignore[misc]
    """A backend of Ray Train that sets up nothing; all workers of a machine see its GPUs."""

    share_cuda_visible_devices = True


class NoGroupConfig(TorchConfig):  # type: ignore[misc]
    """A configuration of Ray Train that leaves the process group to the workers."""

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
    actor = ray.remote(num_cpus=0)(KeyValueActor).remote() if rank == 0 else None
    store = ActorStore(broadcast_from_rank_zero(actor))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
