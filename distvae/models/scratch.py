"""Reusable memory, so that steps need not allocate and clear new memory."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from distvae.numerics.array_types import AnyArray

VIEWS = 1024
"""The number of cached views. A training has fewer distinct sizes of steps."""


class Memory(NamedTuple):
    """A buffer as an array for compiled loops, and as a tensor for torch."""

    array: AnyArray
    tensor: Tensor


class Scratch:
    """Buffers by name, which grow on demand."""

    def __init__(self) -> None:
        self._buffers: dict[str, AnyArray] = {}
        self._views: dict[tuple[str, DTypeLike, tuple[int, ...]], Memory] = {}

    def take(self, name: str, dtype: DTypeLike, *shape: int) -> AnyArray:
        """Return an array of a buffer, with the values of its last use."""
        return self.share(name, dtype, *shape).array

    def share(self, name: str, dtype: DTypeLike, *shape: int) -> Memory:
        """Return an array of a buffer, and the same memory as a tensor."""
        key = (name, dtype, shape)
        found = self._views.get(key)
        if found is None:
            array = self._cut(name, dtype, shape)
            # a tensor made in inference mode could not be written outside it
            with torch.inference_mode(False):
                found = self._views[key] = Memory(array, torch.from_numpy(array))
        return found

    def _cut(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> AnyArray:
        """Return the first part of a buffer, which is reallocated if it is too small."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        is_new = buffer is None or buffer.dtype != dtype or buffer.size < size
        if is_new or len(self._views) >= VIEWS:
            self._views.clear()  # views of a replaced buffer must not stay
        if buffer is None or is_new:
            buffer = self._buffers[name] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)

    def __deepcopy__(self, memo: object) -> "Scratch":
        return Scratch()

    def __reduce__(self) -> tuple[type["Scratch"], tuple[()]]:
        return Scratch, ()
