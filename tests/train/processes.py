"""Look at processes from outside: descendants, survivors, titles."""

import time
from collections.abc import Collection
from pathlib import Path

WORKER = "ray::RayTrainWorker"
ENDED = ("", "Z")
"""The states of processes that have ended, be they waited for by their parents or not."""


def below(root: int) -> set[int]:
    """Return all descendants of a process."""
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    parents = {pid: _stat(pid)[1] for pid in pids}
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
    while left := [pid for pid in pids if _stat(pid)[0] not in ENDED]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return [f"{pid} " + _text(f"/proc/{pid}/cmdline").replace("\0", " ").rstrip() for pid in left]


def _stat(pid: int) -> tuple[str, int]:
    """Return the state of a process and its parent's number."""
    words = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (words[0], int(words[1])) if words else ("", 0)


def _text(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:  # the process has just ended
        return ""
