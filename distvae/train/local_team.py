"""Workers that add up tensors in the memory of their machine, which several machines exchange."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distvae.train.network_team import NetworkTeam, add_over_network, network_errors
from distvae.train.shared_memory import LINE, Barrier, share_memory
from distvae.train.tensor_groups import copy_tensors, group_by_type, split_flat

T = TypeVar("T")


class SumBuffers(NamedTuple):
    """Views of shared memory in which tensors of given shapes are added up."""

    mine: list[Tensor]
    """What this worker adds, in the shapes of the tensors."""
    addends: list[Tensor]
    """What each worker adds to the share that this worker adds up."""
    share: Tensor
    """The sum of the addends."""
    flat: Tensor
    """The sums of all shares."""
    total: list[Tensor]
    """The sums, in the shapes of the tensors."""


class LocalTeam:
    """Workers on one machine, which add up tensors in shared memory, each a share of them."""

    def __init__(self, network: NetworkTeam, meeting: Barrier) -> None:
        self.rank, self.size = network.rank, network.size
        self.network, self.meeting = network, meeting
        self.place, self.places = meeting.place, len(meeting.neighbours.ranks)
        # one slot for each worker of this machine, and one for the sum
        self.slots = torch.empty(self.places + 1, 0, dtype=torch.uint8)
        self.buffers: dict[object, SumBuffers] = {}

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors in one exchange for each type.

        No worker writes a sum before all have read the one before.
        """
        for group in group_by_type(tensors):
            buffers = self._buffers_for(group)
            copy_tensors(group, buffers.mine)
            self.meeting.wait()
            _add_up(buffers.addends, buffers.share)
            self.meeting.wait()
            self._exchange(buffers.flat)
            copy_tensors(buffers.total, group)

    def _exchange(self, flat: Tensor) -> None:
        """Leave the sum of this machine: there is no other."""

    def _buffers_for(self, tensors: list[Tensor]) -> SumBuffers:
        dtype, shapes = tensors[0].dtype, tuple(tensor.shape for tensor in tensors)
        if (dtype, shapes) not in self.buffers:
            self._reserve(dtype.itemsize * sum(map(math.prod, shapes)))
            self.buffers[dtype, shapes] = self._new_buffers(dtype, shapes)
        return self.buffers[dtype, shapes]

    def _new_buffers(self, dtype: torch.dtype, shapes: Sequence[torch.Size]) -> SumBuffers:
        whole = sum(math.prod(shape) for shape in shapes)
        slots = self.slots.view(dtype)[:, :whole]
        first, last = (whole * place // self.places for place in (self.place, self.place + 1))
        *addends, share = slots[:, first:last].unbind()
        mine = split_flat(slots[self.place], shapes)
        flat = slots[self.places]
        return SumBuffers(mine, addends, share, flat, split_flat(flat, shapes))

    def _reserve(self, needed: int) -> None:
        """Make the slots wide enough for a number of bytes."""
        width = -(-needed // LINE) * LINE
        if width <= self.slots.shape[1]:
            return
        length = (self.places + 1) * width
        memory = share_memory(self.meeting.neighbours, length)
        if memory is None:
            raise MemoryError(f"no room for {length:,} bytes that {self.places} workers share")
        self.slots = torch.frombuffer(memory, dtype=torch.uint8).view(self.places + 1, width)
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


class MachinesTeam(LocalTeam):
    """Workers on several machines.

    The workers of a machine add up in shared memory. Its first worker adds to that the sums of
    the other machines, so that each sum crosses the network once for a machine.
    """

    def __init__(self, network: NetworkTeam, meeting: Barrier) -> None:
        super().__init__(network, meeting)
        with network_errors():
            self.firsts = dist.new_group(list(meeting.neighbours.firsts), backend="gloo")

    def _exchange(self, flat: Tensor) -> None:
        if self.place == 0:
            add_over_network(flat, self.meeting.neighbours.firsts, self.firsts)
        self.meeting.wait()

    def barrier(self) -> None:
        """Wait until all workers have arrived."""
        self.network.barrier()


def _add_up(addends: Sequence[Tensor], total: Tensor) -> None:
    """Add up tensors in their order."""
    if len(addends) == 1:
        total.copy_(addends[0])
        return
    torch.add(addends[0], addends[1], out=total)
    for addend in addends[2:]:
        total.add_(addend)
