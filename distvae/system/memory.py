"""Memory: how much is free, how much this process has held."""

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
"""Files with a container's limit, its use and what that is made of, and the names there of cached
files, in versions 2 and 1 of the kernel's control groups.
"""


def available_memory() -> int:
    """Return the bytes that are free on the machine, or in the container if that is less.

    Return the machine's whole memory where the system does not say what is free.
    """
    found = [_free_on_machine(), *(_free_in_container(*files) for files in CGROUPS)]
    return min((value for value in found if value is not None), default=_whole_memory())


def peak_memory() -> int:
    """Return the most bytes that this process has held."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _whole_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_on_machine() -> int | None:
    free = kernel.read_fields(kernel.PROC / "meminfo").get("MemAvailable")
    return None if free is None else 1024 * int(free.split()[0])


def _free_in_container(limit: str, used: str, parts: str, cached: str) -> int | None:
    """Return what a container may still use. Cached files do not count: the kernel drops them."""
    limit_bytes = kernel.read_number(kernel.CGROUP / limit)
    used_bytes = kernel.read_number(kernel.CGROUP / used)
    if limit_bytes is None or used_bytes is None:
        return None
    sizes = kernel.read_fields(kernel.CGROUP / parts, separator=" ")
    cache = sum(int(sizes.get(cached.format(kind), 0)) for kind in ("inactive", "active"))
    return min(limit_bytes, max(0, limit_bytes - used_bytes + cache))
