"""How the workers of Ray Train meet: over a store that is an actor of Ray, and asks for Ray's token
as all of Ray does.

The store that torch would open listens on every address of a machine and lets anybody read, set and
delete its keys.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import ray
import ray.train
import torch.distributed as dist
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig
from torch._C._distributed_c10d import Store as TorchStore

from distvae.train.loopback import HOST, stay_on_loopback

POLL = 0.01
"""Seconds between two looks at whether a key that somebody waits for is there."""
TIMEOUT = timedelta(minutes=30)
"""How long workers wait for each other."""


class Board:
    """The keys and values of a store, in an actor of Ray."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def put(self, key: str, value: bytes) -> None:
        """Set a key."""
        self.values[key] = value

    async def take(self, key: str) -> bytes:
        """Return the value of a key, once it has one."""
        while key not in self.values:
            await asyncio.sleep(POLL)
        return self.values[key]

    async def add(self, key: str, amount: int) -> int:
        """Add to the number that a key has; return the sum."""
        total = int(self.values.get(key, b"0")) + amount
        self.values[key] = str(total).encode()
        return total

    async def swap(self, key: str, expected: bytes, desired: bytes) -> bytes:
        """Set a key that has the expected value, or has none where none is expected; return what it
        has then.
        """
        if self.values.get(key, b"") == expected:
            self.values[key] = desired
        return self.values.get(key, expected)

    async def has(self, keys: list[str]) -> bool:
        """Return whether all keys have values."""
        return all(key in self.values for key in keys)

    async def drop(self, key: str) -> bool:
        """Delete a key; return whether it was there."""
        return self.values.pop(key, None) is not None

    async def count(self) -> int:
        """Return how many keys there are."""
        return len(self.values)


class Store(TorchStore):
    """A store of torch whose keys are on a board."""

    def __init__(self, board: Any) -> None:
        super().__init__()
        self.board, self.limit = board, TIMEOUT

    def set(self, key: str, value: str | bytes) -> None:
        """Set a key."""
        ray.get(self.board.put.remote(key, _bytes(value)))

    def get(self, key: str) -> bytes:
        """Return the value of a key, once it has one."""
        return bytes(ray.get(self.board.take.remote(key), timeout=self.limit.total_seconds()))

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys have values."""
        seconds = (timeout or self.limit).total_seconds()
        ray.get([self.board.take.remote(key) for key in keys], timeout=seconds)

    def add(self, key: str, amount: int) -> int:
        """Add to the number that a key has; return the sum."""
        return int(ray.get(self.board.add.remote(key, amount)))

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        """Set a key that has the expected value; return what it has then."""
        return bytes(ray.get(self.board.swap.remote(key, _bytes(expected), _bytes(desired))))

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all keys have values."""
        return bool(ray.get(self.board.has.remote(list(keys))))

    def delete_key(self, key: str) -> bool:
        """Delete a key; return whether it was there."""
        return bool(ray.get(self.board.drop.remote(key)))

    def num_keys(self) -> int:
        """Return how many keys there are."""
        return int(ray.get(self.board.count.remote()))

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long to wait for a key."""
        self.limit = timeout


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


class NoStore(Backend):  # type: ignore[misc]
    """What Ray Train does before and after a training: nothing, and all workers of a machine see
    its GPUs.
    """

    share_cuda_visible_devices = True


class Unmet(TorchConfig):  # type: ignore[misc]
    """Workers whom Ray Train has not made a process group for."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Return what Ray Train does before and after a training."""
        return NoStore


@contextmanager
def met() -> Iterator[None]:
    """Make a process group of the workers of this training, if there are several; leave it at the
    end.
    """
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    if size == 1:
        yield
        return
    if ray.util.get_node_ip_address() == HOST:  # of a Ray that is local
        stay_on_loopback()
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())
    board = ray.remote(num_cpus=0)(Board).remote() if rank == 0 else None
    store = Store(broadcast_from_rank_zero(board))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
