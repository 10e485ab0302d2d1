"""Checks that data fit into memory, and garbage collection at chosen moments."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.system.memory import available_memory


class MemoryShortage(Refusal):
    """More memory is needed than is free on this machine now."""


def require_memory(source: str | Path, needed: int, what: str, expected: str = "") -> None:
    """Raise `MemoryShortage` if `what` needs more than the free bytes of memory.

    The message names the source, a file or a setting, and what was expected instead.
    """
    free = available_memory()
    if needed <= free:
        return
    message = f"{source}: {what} need {gigabytes(needed)} of memory, but {gigabytes(free)} are free"
    raise MemoryShortage(f"{message}; {expected} expected" if expected else message)


def gigabytes(count: int) -> str:
    """Return a number of bytes in words: in GB, or MB or kB where that would be less than one."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


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
