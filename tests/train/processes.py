"""Look at processes from outside: descendants, survivors, and the phase of a training."""

import json
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

WORKER, SHARD = "ray::RayTrainWorker", "ray::ShardActor"
SPY = Path(sysconfig.get_path("scripts")) / "py-spy"

PHASES = {
    "report": ("ray/train/v2/api/train_fn_utils.py", {"report"}),
    "snapshot": ("distvae/train/session.py", {"save"}),
    "record": ("distvae/train/session.py", {"_record_epoch"}),
    "copy": ("distvae/machines/shards.py", {"send_if_due"}),
    "E-step": ("distvae/train/loop.py", {"_search_block"}),
    "M-step": ("distvae/train/loop.py", {"_step"}),
    "validation": ("distvae/train/loop.py", {"validate"}),
    "agreement": ("distvae/train/team.py", {"sum", "gather", "barrier"}),
    "other": ("distvae/machines/worker.py", {"work"}),
}
"""The functions of each phase; of those on a stack the first phase counts."""
NONE = "none"
"""The phase of a process that is not training: not yet, or no more."""
ENDED = ("", "Z")
"""The states of processes that have ended, be they waited for by their parents or not."""


def below(root: int) -> set[int]:
    """Return all descendants of a process."""
    parents = {pid: _stat(pid)[1] for pid in _pids()}
    found, fresh = set[int](), {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh}
        found |= fresh
    return found


def titled(title: str, pids: Collection[int]) -> list[int]:
    """Return the processes that Ray has given a title."""
    return sorted(pid for pid in pids if _text(f"/proc/{pid}/cmdline").startswith(title))


def remaining(pids: Collection[int], seconds: float) -> list[str]:
    """Return which processes have not ended after some seconds."""
    deadline = time.monotonic() + seconds
    while (
        left := [pid for pid in pids if _stat(pid)[0] not in ENDED]
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [f"{pid} " + _text(f"/proc/{pid}/cmdline").replace("\0", " ").rstrip() for pid in left]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, and let it continue afterwards if it lives."""
    _signal(pid, signal.SIGSTOP)
    try:
        while _stat(pid)[0] not in ("T", *ENDED):
            time.sleep(0.001)
        yield
    finally:
        _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


def phase(pid: int) -> str:
    """Return the phase of a worker."""
    threads = json.loads(spied(pid).stdout or "[]")
    frames = [frame for thread in threads for frame in thread["frames"]]
    return next(
        (name for name, where in PHASES.items() if any(_is(frame, *where) for frame in frames)),
        NONE,
    )


def spied(pid: int) -> subprocess.CompletedProcess[str]:
    """Return the stacks of all threads of a process, read from outside."""
    words = [str(SPY), "dump", "--nonblocking", "--json", "--pid", str(pid)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def _is(frame: dict[str, Any], file: str, functions: set[str]) -> bool:
    """Return whether a frame is in one of some functions.

    py-spy includes the names of their classes.
    """
    return frame["filename"].endswith(file) and frame["name"].rpartition(".")[2] in functions


def _stat(pid: int) -> tuple[str, int]:
    """Return the state of a process and its parent's number."""
    words = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (words[0], int(words[1])) if words else ("", 0)


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _text(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:  # the process has just ended
        return ""
