"""Products of matrices for several trainings at once, where each then has the bits it has alone."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

LINE = 64
"""The bytes of a line of cache, at which every matrix begins.

Libraries sum in another order if a matrix begins in the middle of 16 bytes.
"""
CHECKED_VALUES = 4096
"""The least number of values by which products together are compared with products alone."""
Operands = tuple[Tensor, Tensor, Tensor]
"""Two matrices, and the place of their product."""


def lay_out(count: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a place for so many matrices beside each other, each at a line of cache."""
    size = math.prod(shape)
    step = LINE // dtype.itemsize
    whole = torch.zeros(count, math.ceil(size / step) * step, dtype=dtype)
    places: Tensor = whole[:, :size].unflatten(1, tuple(shape))
    return places


class Product:
    """The products of matrices (T, n, m) and (T, m, k) into a place, for T trainings."""

    def __init__(self, a: Tensor, b: Tensor, out: Tensor, addend: Tensor | None = None) -> None:
        self.a, self.b, self.out, self.addend = a, b, out, addend
        layouts = (MatrixLayout.of(a), MatrixLayout.of(b), MatrixLayout.of(out))
        self.together = keeps_bits(layouts, addend is not None, Precision.current(a.dtype))
        self.parts: list[Operands] = list(zip(a, b, out, strict=True))
        self.addends = [] if addend is None else [each[0] for each in addend]

    def compute(self) -> None:
        """Fill the place."""
        if self.together:
            multiply_together((self.a, self.b, self.out), self.addend)
        else:
            multiply_one_by_one(self.parts, self.addends)


def multiply_together(operands: Operands, addend: Tensor | None) -> None:
    """Fill the place of the products of all trainings."""
    a, b, out = operands
    if addend is None:
        torch.bmm(a, b, out=out)
    else:
        torch.baddbmm(addend, a, b, out=out)


def multiply_one_by_one(parts: Sequence[Operands], addends: Sequence[Tensor]) -> None:
    """Fill the places of products as each training does alone."""
    if addends:
        for (a, b, out), addend in zip(parts, addends, strict=True):
            torch.addmm(addend, a, b, out=out)
    else:
        for a, b, out in parts:
            torch.mm(a, b, out=out)


class MatrixLayout(NamedTuple):
    """Layout of matrices in memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, matrices: Tensor) -> "MatrixLayout":
        """Return the layout of matrices."""
        return cls(tuple(matrices.shape), matrices.stride())

    def draw(self, draws: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Return random matrices that lie so."""
        return torch.empty_strided(self.shape, self.strides, dtype=dtype).normal_(generator=draws)


class Precision(NamedTuple):
    """Settings that decide the bits of a product beside its layout."""

    dtype: torch.dtype
    of_products: str
    threads: int

    @classmethod
    def current(cls, dtype: torch.dtype) -> "Precision":
        """Return how torch multiplies at this moment."""
        return cls(dtype, torch.get_float32_matmul_precision(), torch.get_num_threads())


@lru_cache(maxsize=1024)
def keeps_bits(
    layouts: tuple[MatrixLayout, MatrixLayout, MatrixLayout], has_addend: bool, precision: Precision
) -> bool:
    """Return whether products together have the bits of products one by one, by trying it.

    Libraries have other loops for some shapes of several matrices.
    """
    draws = torch.Generator().manual_seed(0)
    trials = 1 + CHECKED_VALUES // math.prod(layouts[2].shape)
    for _ in range(trials):
        a, b, out = (layout.draw(draws, precision.dtype) for layout in layouts)
        addend = torch.randn(len(out), 1, out.shape[2], generator=draws, dtype=precision.dtype)
        parts = [
            (x.clone(), y.clone(), torch.empty_like(z)) for x, y, z in zip(a, b, out, strict=True)
        ]
        multiply_one_by_one(parts, [each[0] for each in addend] if has_addend else [])
        multiply_together((a, b, out), addend if has_addend else None)
        if not all(torch.equal(one, part[2]) for one, part in zip(out, parts, strict=True)):
            return False
    return True
