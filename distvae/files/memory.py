"""Memory: how much is free, how much this process has used, and whether something fits."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.refusal import Refusal

CGROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Files with a container's limit and use, in versions 2 and 1 of the kernel's control groups."""


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that are free on the machine, or in the container if that is less.

    Return the machine's whole memory where the system does not say what is free.
    """
    found = [_free_on_machine(proc / "meminfo")]
    for limit, used in CGROUPS:
        found.append(_free_in_container(cgroup / limit, cgroup / used))
    known = [value for value in found if value is not None]
    return min(known, default=_whole_memory())


def require_memory(source: str | Path, needed: int, what: str, expected: str = "") -> None:
    """Raise `Refusal` if `what` needs more than the free bytes of memory.

    The message names the source, a file or a setting, and what was expected instead.
    """
    free = available_memory()
    if needed <= free:
        return
    message = f"{source}: {what} need {gigabytes(needed)} of memory, but {gigabytes(free)} are free"
    raise Refusal(f"{message}; {expected} expected" if expected else message)


def gigabytes(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:,.1f} GB"


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes that a container may use, or None if it may use all of the machine's."""
    limits = [_read_number(cgroup / file) for file, _ in CGROUPS]
    whole = _whole_memory()
    return min((value for value in limits if value is not None and value < whole), default=None)


def _whole_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_on_machine(meminfo: Path) -> int | None:
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if "MemAvailable" not in fields:
        return None
    return 1024 * int(fields["MemAvailable"].split()[0])


def _free_in_container(limit: Path, used: Path) -> int | None:
    limit_bytes, used_bytes = _read_number(limit), _read_number(used)
    if limit_bytes is None or used_bytes is None:
        return None
    return max(0, limit_bytes - used_bytes)


def _read_number(file: Path) -> int | None:
    text = file.read_text().strip() if file.exists() else ""
    return int(text) if text.isdigit() else None


def peak_memory() -> int:
    """Return the most bytes that this process has held."""
    import resource  # not every system has it

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def collecting_later() -> Iterator[None]:
    """Look for garbage only after `collect_from_now_on` was called, or at the end.

    Modules that are imported stay, so a fifth of the time of importing them is saved.
    """
    gc.disable()
    try:
        yield
    finally:
        collect_from_now_on()


def collect_from_now_on() -> None:
    """Look for garbage again, among what is made from now on."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
