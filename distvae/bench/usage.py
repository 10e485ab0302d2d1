"""What a command takes: seconds, memory of each of its processes, and bytes read and written."""

import os
import resource
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distvae.files.refusal import Refusal
from distvae.system.processes import bytes_counted, marked_processes, memory_of

MARK = "DISTVAE_BENCH_MARK"
"""The variable that marks the processes of a command."""
POLL_SECONDS = 0.05
LEAST_MEMORY = 2**24
"""Bytes that a process holds at least whose memory is told."""
LEAST_SECONDS = 0.25
"""Seconds that a process lives at least whose memory is told. A program that is being started
shares the memory of its starter for a moment.
"""


@dataclass
class Seen:
    """What was seen of a process: when it was first and last seen, and its memory in bytes."""

    first: float
    last: float = 0.0
    peak: int = 0
    held: int = 0

    def counts(self) -> bool:
        """Tell whether the process was more than the start of another program."""
        return self.last - self.first >= LEAST_SECONDS


@dataclass(frozen=True)
class Usage:
    """What a command and all its processes took."""

    seconds: float
    processor_seconds: float
    peaks: tuple[int, ...]
    """The most memory in bytes of each process, the largest first; mapped files count."""
    held: tuple[int, ...]
    """The same without mapped files, which the system takes back when it needs memory."""
    read: int
    """Bytes read by calls. What is read through memory maps is counted only from the disk."""
    written: int
    disk_read: int
    """Bytes that came from the disk and not from the system's cache."""
    output: str


def measure_command(words: Sequence[str]) -> Usage:
    """Run a command to its end, and return what it took; refuse one that fails."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    environment = os.environ | {MARK: mark}
    before, processor, began = bytes_counted(), _processor_seconds(), time.perf_counter()
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    processes = dict[int, Seen]()
    while process.poll() is None:
        _look(mark, processes)
        time.sleep(POLL_SECONDS)
    output = process.communicate()[0]
    seconds = time.perf_counter() - began
    if process.returncode:
        raise Refusal(f"bench rows: '{' '.join(words[:5])} ...' ended with {process.returncode}")
    after = bytes_counted()
    counted = {name: after[name] - before[name] for name in after}
    lasting = [seen for seen in processes.values() if seen.counts()]
    return Usage(
        seconds,
        _processor_seconds() - processor,
        _largest(seen.peak for seen in lasting),
        _largest(seen.held for seen in lasting),
        counted.get("rchar", 0),
        counted.get("wchar", 0),
        counted.get("read_bytes", 0),
        output,
    )


def _largest(memory: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted((size for size in memory if size >= LEAST_MEMORY), reverse=True))


def _look(mark: str, processes: dict[int, Seen]) -> None:
    """Note the memory of all processes that are marked."""
    now = time.monotonic()
    for pid in marked_processes(MARK, mark):
        memory = memory_of(pid)
        seen = processes.setdefault(pid, Seen(now))
        seen.last = now
        seen.peak = max(seen.peak, memory.get("VmHWM", 0))
        seen.held = max(seen.held, memory.get("RssAnon", 0) + memory.get("RssShmem", 0))


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
