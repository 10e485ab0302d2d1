"""Share memory between the processes of one machine, and a barrier that notices ended processes.

The memory has no name in any file system, so none of it is left behind, however the processes end.
"""

import mmap
import os
import platform
import select
import time
from pathlib import Path
from typing import Protocol, TypeVar

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


def share_memory(rank: int, gather: Gather, length: int) -> mmap.mmap | None:
    """Return zeros that all workers share, or None if one of them cannot."""
    created = _create(length) if rank == 0 else None
    try:
        pid, file = gather((os.getpid(), created))[0]
        memory = None if file is None else _attach(pid, file, length)
        return memory if all(gather(memory is not None)) else None
    finally:
        if created is not None:
            os.close(created)


def _create(length: int) -> int | None:
    try:
        file = os.memfd_create("distvae")
    except (AttributeError, OSError):  # the system is not Linux, or forbids it
        return None
    try:
        os.posix_fallocate(file, 0, length)
    except OSError:
        os.close(file)
        return None
    return file


def _attach(pid: int, file: int, length: int) -> mmap.mmap | None:
    try:
        with Path(f"/proc/{pid}/fd/{file}").open("r+b", buffering=0) as opened:
            return mmap.mmap(opened.fileno(), length)
    except OSError:
        return None


def machine_id() -> str | None:
    """Return an id that is equal for processes that can find each other by process number.

    Return None if the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _watch(pid: int) -> int | None:
    """Return a handle that tells when a process has ended, even if its number is used again."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


class Barrier:
    """A barrier in shared memory: each worker counts in its own cell and reads the others'."""

    patience = 1800.0
    """Seconds to wait for a worker that neither arrives nor ends."""

    def __init__(self, rank: int, memory: mmap.mmap, watches: list[int]) -> None:
        self.rank, self.count = rank, 0
        cells = memoryview(memory).cast("q")
        self.counts = cells[:: LINE // 8]
        self.closed = cells[1 :: LINE // 8]
        self.watches, self.ended = watches, select.poll()
        for watch in watches:
            self.ended.register(watch, select.POLLIN)

    @classmethod
    def among(cls, rank: int, gather: Gather) -> "Barrier | None":
        """Return a barrier for the workers of one machine.

        Return None if they are on several machines, or if the machine lacks what it takes.
        """
        machines = gather(machine_id())
        if machines[0] is None or len(set(machines)) > 1:
            return None
        watches = [watch for pid in gather(os.getpid()) if (watch := _watch(pid)) is not None]
        if not all(gather(len(watches) == len(machines))):
            return None
        memory = share_memory(rank, gather, LINE * len(machines))
        return None if memory is None else cls(rank, memory, watches)

    def wait(self) -> None:
        """Wait until all workers have arrived."""
        self.count += 1
        _fence()
        self.counts[self.rank] = self.count
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
            raise WorkerLost(f"worker {lost[0]} of {len(self.counts)} has ended")
        if waited > self.patience:
            raise WorkerLost(
                f"worker {peer} of {len(self.counts)} has not answered for {waited:.0f} s"
            )

    def close(self) -> None:
        """Tell the others not to wait for this worker any more."""
        self.closed[self.rank] = 1
        for watch in self.watches:
            os.close(watch)
        self.watches = []


def _fence() -> None:
    """Make earlier writes visible before later ones. Linux does so whenever it schedules."""
    if not IS_ORDERED:
        os.sched_yield()
