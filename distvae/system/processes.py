"""Other processes of this machine, as far as the system shows them. macOS shows none here."""

import os
from collections.abc import Iterator
from contextlib import suppress

from distvae.system import kernel


def marked_processes(variable: str, value: str) -> Iterator[int]:
    """Yield the processes whose environment has a variable with this value."""
    mark = f"{variable}={value}\0".encode()
    for file in kernel.PROC.glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in file.read_bytes():
                yield int(file.parent.name)


def words_of(pid: int) -> list[str]:
    """Return the command line of a process, or nothing if it has ended."""
    return kernel.read(kernel.PROC / str(pid) / "cmdline").split("\0")


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process; 0 if it has ended."""
    fields = kernel.read(kernel.PROC / str(pid) / "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int | str) -> dict[str, int]:
    """Return the bytes of memory of a process, by the kernel's names."""
    fields = kernel.read_fields(kernel.PROC / str(pid) / "status")
    return {key: 1024 * int(text[:-3]) for key, text in fields.items() if text.endswith(" kB")}


def bytes_counted(pid: int | str = "self") -> dict[str, int]:
    """Return what a process and those that it has waited for read and wrote, by the kernel's
    names.
    """
    fields = kernel.read_fields(kernel.PROC / str(pid) / "io")
    return {name: int(count) for name, count in fields.items()}


def loopback_bytes() -> int:
    """Return how many bytes were received through the loopback interface so far."""
    fields = kernel.read_fields(kernel.PROC / "net" / "dev")
    return int(fields["lo"].split()[0]) if "lo" in fields else 0
