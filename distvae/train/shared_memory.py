"""Memory that processes of one machine share, and a barrier in it that notices when one of them has
ended.

The memory has no name in any file system, so none of it is left however the processes end.
"""

import mmap
import os
import platform
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINE = 64  # bytes that processors exchange at once; two workers write to one line never
SPINS = 100  # looks at a tick, some microseconds in all, before others may have the processor
YIELDS = 0.01  # seconds of waiting before it becomes sleep
ORDERED = platform.machine() in (
    "x86_64",
    "AMD64",
)  # whether the processor keeps writes, and reads, in their order

Gather = Callable[[Any], list[Any]]
"""Tells every worker the values of all, in order of rank."""


class WorkerLost(RuntimeError):
    """Another worker has ended, or cannot be reached."""


def share_memory(rank: int, gather: Gather, length: int) -> mmap.mmap | None:
    """Zeros that all workers see; None where one of them cannot."""
    made = _make(length) if rank == 0 else None
    try:
        pid, file = gather((os.getpid(), made))[0]
        memory = None if file is None else _attach(pid, file, length)
        return memory if all(gather(memory is not None)) else None
    finally:
        if made is not None:
            os.close(made)


def _make(length: int) -> int | None:
    try:
        file = os.memfd_create("distvae")
    except (AttributeError, OSError):  # a system that is not Linux, or forbids it
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
    """The same for processes that find each other by number; None where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _watch(pid: int) -> int | None:
    """What tells when a process has ended, be its number taken by another since."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


class Barrier:
    """Nobody passes before all have come: each counts in a cell of its own, and looks at the
    others'.
    """

    patience = 1800.0
    """Seconds to wait for a worker that neither comes nor ends."""

    def __init__(self, rank: int, memory: mmap.mmap, watches: list[int]) -> None:
        self.rank, self.count = rank, 0
        self.ticks = memoryview(memory).cast("q")[:: LINE // 8]
        self.left = memoryview(memory).cast("q")[1 :: LINE // 8]
        self.watches, self.ended = watches, select.poll()
        for watch in watches:
            self.ended.register(watch, select.POLLIN)

    @classmethod
    def among(cls, rank: int, gather: Gather) -> "Barrier | None":
        """The barrier of workers on one machine; None where they are not, or it has not what is
        needed.
        """
        names = gather(machine_id())
        if names[0] is None or len(set(names)) > 1:
            return None
        watches = [watch for pid in gather(os.getpid()) if (watch := _watch(pid)) is not None]
        able = all(gather(len(watches) == len(names)))
        memory = share_memory(rank, gather, LINE * len(names)) if able else None
        return None if memory is None else cls(rank, memory, watches)

    def wait(self) -> None:
        """Come, and pass when all have."""
        self.count += 1
        _fence()
        self.ticks[self.rank] = self.count
        for peer in range(len(self.ticks)):
            self._wait_for(peer)
        _fence()

    def _wait_for(self, peer: int) -> None:
        if any(self.ticks[peer] >= self.count for _ in range(SPINS)):
            return
        began = time.monotonic()
        while self.ticks[peer] < self.count:
            waited = time.monotonic() - began
            if waited < YIELDS:
                os.sched_yield()
            else:
                self._refuse_to_wait_for_ever(peer, waited)
                time.sleep(min(waited / 50, 0.02))

    def _refuse_to_wait_for_ever(self, peer: int, waited: float) -> None:
        ended = {self.watches.index(watch) for watch, _ in self.ended.poll(0)}
        ended |= {other for other in range(len(self.left)) if self.left[other]}
        lost = sorted(
            other for other in ended if self.ticks[other] < self.count
        )  # some end, and rightly, after coming
        if lost:
            raise WorkerLost(f"worker {lost[0]} of {len(self.ticks)} has ended")
        if waited > self.patience:
            raise WorkerLost(
                f"worker {peer} of {len(self.ticks)} has not answered for {waited:.0f} s"
            )

    def leave(self) -> None:
        """Be waited for no more."""
        self.left[self.rank] = 1
        for watch in self.watches:
            os.close(watch)
        self.watches = []


def _fence() -> None:
    """What was written before is seen before what is written after; Linux sees to that whenever it
    schedules.
    """
    if not ORDERED:
        os.sched_yield()
