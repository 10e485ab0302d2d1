"""Resources of a command: seconds, memory of each of its processes, bytes read and written."""

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from distvae.files.refusal import Refusal
from distvae.system.processes import (
    bytes_counted,
    loopback_bytes,
    marked_processes,
    memory_of,
    processor_seconds,
    words_of,
)

MARK = "DISTVAE_BENCH_MARK"
"""The variable that marks the processes of a command."""
POLL_SECONDS = 0.05
PATIENCE = 600.0
"""Seconds in which what is waited for has to happen."""
LEAST_MEMORY = 2**24
"""Bytes that a process holds at least whose memory is told."""
LEAST_SECONDS = 0.25
"""Seconds that a process lives at least whose memory is told. A program that is being started
shares the memory of its starter for a moment.
"""


@dataclass
class Seen:
    """Resources of one process, as sampled so far."""

    first: float
    """When it was seen first, and then last."""
    last: float = 0.0
    title: str = ""
    """The beginning of its command line, or what Ray calls it."""
    peak: int = 0
    """The most memory in bytes; mapped files count."""
    held: int = 0
    """The same without mapped files, which the system takes back when it needs memory."""
    processor: float = 0.0
    """Seconds of processors."""
    disk_read: int = 0

    def counts(self) -> bool:
        """Tell whether the process was more than the start of another program."""
        return self.last - self.first >= LEAST_SECONDS


@dataclass(frozen=True)
class Usage:
    """Resources of a command and all its processes."""

    seconds: float
    processor_seconds: float
    processes: tuple[Seen, ...]
    read: int
    """Bytes read by calls. What is read through memory maps is counted only from the disk."""
    written: int
    disk_read: int
    """Bytes that came from the disk and not from the system's cache."""
    loopback: int
    """Bytes through this machine's own network meanwhile, those of other programs too."""
    output: str

    def peaks(self) -> tuple[int, ...]:
        """Return the most memory of each process, the largest first; mapped files count."""
        return _largest(seen.peak for seen in self.processes)

    def held(self, title: str = "") -> tuple[int, ...]:
        """Return the same without mapped files, of processes with such a title."""
        return _largest(seen.held for seen in self.processes if title in seen.title)


@dataclass
class Running:
    """A command that runs, with all processes that it started."""

    process: "subprocess.Popen[str]"
    mark: str
    began: float = field(default_factory=time.time)
    seen: dict[int, Seen] = field(default_factory=dict)

    @classmethod
    def start(cls, words: Sequence[str], errors: int | None = None) -> "Running":
        """Start a command, whose processes are marked; `errors` is for what they say of errors."""
        mark = f"{os.getpid()}-{time.monotonic_ns()}"
        environment = os.environ | {MARK: mark, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        return cls(process, mark)

    def wait(self, happened: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Watch the processes until something has happened, or refuse."""
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                raise Refusal(f"bench rows: nothing happened within {seconds:.0f} s")
            self.look()
            time.sleep(POLL_SECONDS)

    def watch(self, seconds: float) -> None:
        """Watch the processes for some seconds."""
        deadline = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= deadline, 2 * seconds)

    def has_ended(self) -> bool:
        """Return whether the command has ended."""
        return self.process.poll() is not None

    def processor_seconds(self) -> float:
        """Return what all processes that were seen have taken of processors."""
        self.look()
        return sum(seen.processor for seen in self.seen.values())

    def kill(self, title: str = "") -> float:
        """Kill the first process with such a title, or all of them; return when that was."""
        found = [pid for pid in marked_processes(MARK, self.mark) if title in _title(pid)]
        for pid in found[:1] if title else found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return time.time()

    def look(self) -> None:
        """Note what all processes have taken so far."""
        now = time.monotonic()
        for pid in marked_processes(MARK, self.mark):
            _note(self.seen.setdefault(pid, Seen(now)), pid, now)


def let_it_run(running: Running) -> None:
    """Wait until a command has ended of itself."""
    running.wait(running.has_ended)


def measure_command(
    words: Sequence[str], drive: Callable[[Running], None] = let_it_run, fails: bool = False
) -> Usage:
    """Run a command to its end, and return what it took; refuse one that fails, unless it should.

    `drive` is what happens to it meanwhile.
    """
    before, processor, network = bytes_counted(), _children_seconds(), loopback_bytes()
    began = time.perf_counter()
    running = Running.start(words, subprocess.DEVNULL if fails else None)
    try:
        drive(running)
    finally:
        running.kill()
    output = running.process.communicate()[0]
    seconds = time.perf_counter() - began
    if running.process.returncode and not fails:
        raise Refusal(
            f"bench rows: '{' '.join(words[:5])} ...' ended with {running.process.returncode}"
        )
    after, seen = bytes_counted(), [*running.seen.values()]
    counted = {name: after[name] - before[name] for name in after}
    # This process learns what children took that were waited for, of which Ray's are not all.
    waited = _children_seconds() - processor
    return Usage(
        seconds,
        max(waited, running.processor_seconds()),
        tuple(of for of in seen if of.counts()),
        counted.get("rchar", 0),
        counted.get("wchar", 0),
        max(counted.get("read_bytes", 0), sum(of.disk_read for of in seen)),
        loopback_bytes() - network,
        output,
    )


def _largest(memory: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted((size for size in memory if size >= LEAST_MEMORY), reverse=True))


def _note(seen: Seen, pid: int, now: float) -> None:
    """Note what a process has taken so far."""
    memory = memory_of(pid)
    seen.last, seen.title = now, _title(pid) or seen.title
    seen.peak = max(seen.peak, memory.get("VmHWM", 0))
    seen.held = max(seen.held, memory.get("RssAnon", 0) + memory.get("RssShmem", 0))
    seen.processor = max(seen.processor, processor_seconds(pid))
    seen.disk_read = max(seen.disk_read, bytes_counted(pid).get("read_bytes", 0))


def _title(pid: int) -> str:
    return " ".join(words_of(pid))


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
