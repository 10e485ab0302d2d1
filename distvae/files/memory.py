"""Checks that data fit into memory, and garbage collection at chosen moments."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.system import available_memory


class MemoryShortage(Refusal):
    """More memory is needed than the machine has free."""


def require_memory(source: str | Path, needed: int, what: str, expected: str = "") -> None:
    """Raise `MemoryShortage` if `what` needs more than the free bytes of memory.

    The message names the source, which is a file or a setting, and the expected value.
    """
    free = available_memory()
    if needed <= free:
        return
    message = f"{source}: {what} need {gigabytes(needed)} of memory, but {gigabytes(free)} are free"
    raise MemoryShortage(f"{message}; {expected} expected" if expected else message)


def gigabytes(count: int) -> str:
    """Return a number of bytes as text: in GB, or in MB or kB if it is below one GB or MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


@contextmanager
def collecting_later() -> Iterator[None]:
    """Collect no garbage until `collect_from_now_on` is called, or until the block ends.

    Imported modules stay in memory. Not scanning them saves a fifth of the import time.
    """
    gc.disable()
    try:
        yield
    finally:
        collect_from_now_on()


def collect_from_now_on() -> None:
    """Collect garbage again, only among objects that are created from now on."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
