"""Memory without a name that processes share, and handles that tell when a process has ended.

Each function returns None where the system lacks the means.
"""

import mmap
import os

from distvae.system import kernel


def create_memory(length: int) -> int | None:
    """Return the descriptor of so many zeros, which other processes can map."""
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


def map_memory(pid: int, file: int, length: int) -> mmap.mmap | None:
    """Return the memory behind a descriptor of a process, this one or another."""
    try:
        with (kernel.PROC / f"{pid}/fd/{file}").open("r+b", buffering=0) as opened:
            return mmap.mmap(opened.fileno(), length)
    except OSError:
        return None


def machine_id() -> str | None:
    """Return an id that is equal for processes that can find each other by process number."""
    boot = kernel.read(kernel.PROC / "sys/kernel/random/boot_id").strip()
    try:
        return f"{boot} {(kernel.PROC / 'self/ns/pid').readlink()}" if boot else None
    except OSError:
        return None


def watch_process(pid: int) -> int | None:
    """Return a handle that tells when a process has ended, even if its number is used again."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
