"""Workers anywhere, connected by torch.distributed."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distvae.train.devices import CPU, gpu_id, have_distinct_gpus
from distvae.train.shared_memory import WorkerLost
from distvae.train.tensor_groups import copy_tensors, group_by_type, split_flat

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""How long workers wait for each other, for example while one writes a checkpoint. NCCL's own
limit is ten minutes.
"""


class NetworkTeam:
    """Workers anywhere, connected by torch.distributed."""

    def __init__(self, owns_connection: bool, device: torch.device = CPU) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.owns_connection = owns_connection
        """Whether this program set up torch.distributed, and has to end it."""
        can_use_nccl = have_distinct_gpus(self.gather(gpu_id(device))) and dist.is_nccl_available()
        with network_errors():
            self.nccl = dist.new_group(backend="nccl", timeout=TIMEOUT) if can_use_nccl else None

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors in one exchange for each type."""
        for group in group_by_type(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            nccl = self.nccl if flat.is_cuda else None
            if nccl is None:
                flat = flat.to(CPU)
            add_over_network(flat, range(self.size), nccl)
            copy_tensors(split_flat(flat, [tensor.shape for tensor in group]), group)

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


def add_over_network(flat: Tensor, ranks: Sequence[int], group: dist.ProcessGroup | None) -> None:
    """Add up flat tensors of the workers of a group, which have these ranks.

    Two that have no NCCL send theirs to each other. A reduction of gloo sends as many bytes, but
    waits twice for bytes to travel.
    """
    with network_errors():
        if len(ranks) > 2 or flat.is_cuda:
            dist.all_reduce(flat, group=group)
            return
        other = next(rank for rank in ranks if rank != dist.get_rank())
        theirs = torch.empty_like(flat)
        for work in (dist.irecv(theirs, other, group), dist.isend(flat, other, group)):
            assert work is not None
            work.wait()
    flat += theirs


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
