"""How much memory this process has taken, and may still take."""

import os
import sys
from pathlib import Path

from distvae.files.refusal import Refusal

CGROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""The limit of a container and what is used of it, in version 2 and 1 of the kernel's control
groups.
"""


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes: what the machine has left, or the container if that is less; all of it where the
    system does not tell.
    """
    found = [
        _left(proc / "meminfo"),
        *(_below(cgroup / limit, cgroup / used) for limit, used in CGROUPS),
    ]
    known = [value for value in found if value is not None]
    return min(known, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


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
    """Return so many bytes in words."""
    return f"{count / 1e9:,.1f} GB"


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that a container may take, if it may not take all."""
    found = [_number(cgroup / file) for file, _ in CGROUPS]
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((value for value in found if value is not None and value < whole), default=None)


def _left(meminfo: Path) -> int | None:
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return 1024 * int(fields["MemAvailable"].split()[0]) if "MemAvailable" in fields else None


def _below(limit: Path, used: Path) -> int | None:
    most, taken = _number(limit), _number(used)
    return None if most is None or taken is None else max(0, most - taken)


def _number(file: Path) -> int | None:
    text = file.read_text().strip() if file.exists() else ""
    return int(text) if text.isdigit() else None


def peak_memory() -> int:
    """Bytes: the most that this process has held."""
    import resource  # which not every system has

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
