"""Rows that are computed side by side, on as many threads as torch may use.

Torch's own threads share one operator at a time. These share whole computations, whose loops
between the operators then run side by side too. That pays where the parts take milliseconds.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

T = TypeVar("T")

MIN_ROWS = 128
"""The fewest rows for which a thread pays."""


def in_parts(rows: int, compute: Callable[[slice], T]) -> list[T]:
    """Return what is computed for consecutive parts of some rows, each on a thread."""
    threads = torch.get_num_threads()
    count = max(1, min(threads, rows // MIN_ROWS))
    parts = [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]
    if count == 1:
        return [compute(parts[0])]
    pool = _pool(threads)
    torch.set_num_threads(1)  # of each part: the library of products counts for all of them
    try:
        return list(pool.map(compute, parts))
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "rows", torch.set_num_threads, (1,))
