"""Share memory between the processes of one machine, and a barrier that notices ended processes.

The memory has no name in any file system, so none of it is left behind, however the processes end.
"""

import mmap
import os
import platform
import select
import time
from dataclasses import dataclass
from typing import Protocol, TypeVar

from distvae.system import sharing

T = TypeVar("T")

LINE = 64
"""Bytes that processors exchange at once. No two workers write to the same line."""
SPINS = 100
"""Reads of another worker's count, some microseconds in all, before the processor is yielded."""
YIELD_SECONDS = 0.01
"""Seconds of yielding before waiting becomes sleep."""
IS_ORDERED = platform.machine() in ("x86_64", "AMD64")
"""Whether the processor keeps writes, and reads, in order."""


class Gather(Protocol):
    """A function that returns the values of all workers to each, in order of rank."""

    def __call__(self, value: T, /) -> list[T]:
        """Return the values of all workers."""


class WorkerLost(RuntimeError):
    """Another worker has ended, or cannot be reached."""


@dataclass(frozen=True)
class Neighbours:
    """The workers of one machine, among those of several."""

    rank: int
    """The rank of this worker among all."""
    size: int
    """The number of workers of all machines."""
    ranks: tuple[int, ...]
    """The ranks of the workers of this machine, itself included."""
    firsts: tuple[int, ...]
    """The first worker of each machine."""
    gather: Gather
    """Gathers values of the workers of all machines."""

    @property
    def place(self) -> int:
        """Return the place of this worker among those of its machine."""
        return self.ranks.index(self.rank)

    def gather_here(self, value: T) -> list[T]:
        """Return the values of the workers of this machine. Those of all machines must call it."""
        values = self.gather(value)
        return [values[rank] for rank in self.ranks]


def find_neighbours(rank: int, gather: Gather) -> Neighbours | None:
    """Return the workers of this machine.

    Return None if no machine has two workers, or one does not tell what it is.
    """
    machines = gather(sharing.machine_id())
    if None in machines or len(set(machines)) == len(machines):
        return None
    here = [other for other, machine in enumerate(machines) if machine == machines[rank]]
    firsts = {machines.index(machine) for machine in machines}
    return Neighbours(rank, len(machines), tuple(here), tuple(sorted(firsts)), gather)


def share_memory(neighbours: Neighbours, length: int) -> mmap.mmap | None:
    """Return zeros that the workers of a machine share, or None if a worker of any cannot."""
    created = sharing.create_memory(length) if neighbours.place == 0 else None
    try:
        pid, file = neighbours.gather_here((os.getpid(), created))[0]
        memory = None if file is None else sharing.map_memory(pid, file, length)
        return memory if all(neighbours.gather(memory is not None)) else None
    finally:
        if created is not None:
            os.close(created)


class Barrier:
    """A barrier in shared memory: each worker counts in its own cell and reads the others'."""

    patience = 1800.0
    """Seconds to wait for a worker that neither arrives nor ends."""

    def __init__(self, neighbours: Neighbours, memory: mmap.mmap, watches: list[int]) -> None:
        self.neighbours, self.place, self.count = neighbours, neighbours.place, 0
        cells = memoryview(memory).cast("q")
        self.counts = cells[:: LINE // 8]
        self.closed = cells[1 :: LINE // 8]
        self.watches, self.ended = watches, select.poll()
        for watch in watches:
            self.ended.register(watch, select.POLLIN)

    @classmethod
    def among(cls, neighbours: Neighbours) -> "Barrier | None":
        """Return a barrier for the workers of one machine, or None if any machine lacks a means."""
        pids = neighbours.gather_here(os.getpid())
        watches = [watch for pid in pids if (watch := sharing.watch_process(pid)) is not None]
        if not all(neighbours.gather(len(watches) == len(pids))):
            return None
        memory = share_memory(neighbours, LINE * len(pids))
        return None if memory is None else cls(neighbours, memory, watches)

    def wait(self) -> None:
        """Wait until all workers have arrived."""
        self.count += 1
        _fence()
        self.counts[self.place] = self.count
        for peer in range(len(self.counts)):
            self._wait_for(peer)
        _fence()

    def _wait_for(self, peer: int) -> None:
        if any(self.counts[peer] >= self.count for _ in range(SPINS)):
            return
        start = time.monotonic()
        while self.counts[peer] < self.count:
            waited = time.monotonic() - start
            if waited < YIELD_SECONDS:
                os.sched_yield()
            else:
                self._check_peers(peer, waited)
                time.sleep(min(waited / 50, 0.02))

    def _check_peers(self, peer: int, waited: float) -> None:
        """Raise `WorkerLost` if a worker has ended, or after too long a wait."""
        ended = {self.watches.index(watch) for watch, _ in self.ended.poll(0)}
        ended |= {other for other in range(len(self.closed)) if self.closed[other]}
        # a worker may well end after it has arrived
        lost = sorted(other for other in ended if self.counts[other] < self.count)
        if lost:
            raise WorkerLost(f"{self._name(lost[0])} has ended")
        if waited > self.patience:
            raise WorkerLost(f"{self._name(peer)} has not answered for {waited:.0f} s")

    def _name(self, place: int) -> str:
        return f"worker {self.neighbours.ranks[place]} of {self.neighbours.size}"

    def close(self) -> None:
        """Tell the others not to wait for this worker any more."""
        self.closed[self.place] = 1
        for watch in self.watches:
            os.close(watch)
        self.watches = []


def _fence() -> None:
    """Make earlier writes visible before later ones. Linux does so whenever it schedules."""
    if not IS_ORDERED:
        os.sched_yield()
