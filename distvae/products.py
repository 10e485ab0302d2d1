"""Matrix products on the CPU: by the faster of torch's two libraries, where it is as precise, and by how many threads.

torch asks oneDNN instead of MKL only where products may be of bfloat16. A CPU that cannot multiply blocks of those
takes float32 all the same, on AMD's cores twice as fast as MKL does; any other loses precision. So both are looked at.
oneDNN compiles a product for each shape that it meets: shapes have to be few.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

PRECISE = 1e-5  # relative error of a product in float32; in bfloat16 it is 2e-3
FASTER = 1.3  # times; where oneDNN is no better than MKL, noise does not make it so
TURNS = 10
SHAPES = ((1024, 512, 144), (32, 512, 512), (4096, 64, 64))


@lru_cache
def choose() -> None:
    """Have torch ask oneDNN from here on, if that is better; where there is a GPU, whose precision it is too, never."""
    before = torch.get_float32_matmul_precision()
    if before != "highest" or torch.cuda.is_available():
        return
    draws = torch.Generator().manual_seed(0)
    operands = [(torch.randn(m, k, generator=draws), torch.randn(k, n, generator=draws)) for m, k, n in SHAPES]
    with threads(1):
        seconds = _seconds(*operands[0])
        torch.set_float32_matmul_precision("medium")
        precise = all(max(error(a, b), error(b.T, a.T)) < PRECISE for a, b in operands)
        if not precise or seconds < FASTER * _seconds(*operands[0]):
            torch.set_float32_matmul_precision(before)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads for torch, and the former number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def error(a: Tensor, b: Tensor) -> float:
    """Of their product, relative to its norm."""
    true = a.double() @ b.double()
    return float((a @ b - true).norm() / true.norm())


def _seconds(a: Tensor, b: Tensor) -> float:
    """The fewest of some turns, of this thread alone and after one that may have to compile."""
    product, turns = a @ b, []
    for _ in range(TURNS):
        began = time.thread_time()
        torch.mm(a, b, out=product)
        turns.append(time.thread_time() - began)
    return min(turns)
