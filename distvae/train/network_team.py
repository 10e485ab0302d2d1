"""Workers anywhere, connected by torch.distributed."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distvae.train.devices import CPU, gpu_id, have_distinct_gpus
from distvae.train.shared_memory import WorkerLost
from distvae.train.tensor_groups import copy_tensors, group_by_type

T = TypeVar("T")


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
        for group in group_by_type(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            nccl = self.nccl if flat.is_cuda else None
            if nccl is None:
                flat = flat.to(CPU)
            with network_errors():
                dist.all_reduce(flat, group=nccl)
            parts = flat.split([tensor.numel() for tensor in group])
            copy_tensors(
                [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)], group
            )

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
    """Raise `WorkerLost` for errors of the network, which mean that another worker has ended."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerLost(f"another worker has ended or is out of reach: {error}") from error
