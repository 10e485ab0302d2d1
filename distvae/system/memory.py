"""The free memory of the machine or container, and the peak memory of this process."""

import os
import sys

from distvae.system import kernel

CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "{}_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_{}_file",
    ),
)
"""For versions 2 and 1 of control groups: the files with a container's limit, its usage and the
details of its usage, and the name of the field for cached files in the details.
"""


def available_memory() -> int:
    """Return the free bytes of the machine, or of the container if it has fewer.

    Return the total memory of the machine if the system does not report its free memory.
    """
    found = [_free_on_machine(), *(_free_in_container(*files) for files in CGROUPS)]
    return min((value for value in found if value is not None), default=_whole_memory())


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _whole_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_on_machine() -> int | None:
    free = kernel.read_fields(kernel.PROC / "meminfo").get("MemAvailable")
    return None if free is None else 1024 * int(free.split()[0])


def _free_in_container(limit: str, used: str, parts: str, cached: str) -> int | None:
    """Return the free bytes of a container. Cached files count as free, as they can be dropped."""
    limit_bytes = kernel.read_number(kernel.CGROUP / limit)
    used_bytes = kernel.read_number(kernel.CGROUP / used)
    if limit_bytes is None or used_bytes is None:
        return None
    sizes = kernel.read_fields(kernel.CGROUP / parts, separator=" ")
    cache = sum(int(sizes.get(cached.format(kind), 0)) for kind in ("inactive", "active"))
    return min(limit_bytes, max(0, limit_bytes - used_bytes + cache))
