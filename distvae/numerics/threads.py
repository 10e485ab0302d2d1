"""Compute shards of rows in parallel threads.

Torch parallelises one operator at a time. These threads run whole computations in parallel,
including the loops between operators. That pays if each shard takes milliseconds.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

T = TypeVar("T")

MIN_ROWS = 128
"""The fewest rows for which another thread pays."""


def in_parts(rows: int, compute: Callable[[slice], T]) -> list[T]:
    """Return the results of `compute` on consecutive slices of the rows, one thread per slice."""
    threads = torch.get_num_threads()
    count = max(1, min(threads, rows // MIN_ROWS))
    parts = [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]
    if count == 1:
        return [compute(parts[0])]
    pool = _pool(threads)
    torch.set_num_threads(1)  # set here too: the BLAS library has one setting for all threads
    try:
        return list(pool.map(compute, parts))
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "rows", torch.set_num_threads, (1,))
