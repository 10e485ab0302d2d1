"""Short names for types of arrays, and the conversion to plain NumPy arrays."""

from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AnyArray: TypeAlias = NDArray[Any]
Floats = NDArray[np.floating]
"""Floating-point arrays of any precision."""
Doubles = NDArray[np.float64]
T = TypeVar("T")


def plain_array(array: T) -> T | AnyArray:
    """Return a tensor or a masked array as a plain array, and any other value unchanged.

    A bfloat16 tensor becomes float32, because NumPy has no bfloat16.
    """
    if isinstance(array, Tensor):
        tensor = array.float() if array.dtype == torch.bfloat16 else array
        plain: AnyArray = tensor.numpy(force=True)
        return plain
    return without_mask(array)


def without_mask(array: T) -> T | AnyArray:
    """Return a masked array as a plain array with NaN for masked values.

    A masked array that is not numeric only loses its mask. Any other value is returned unchanged.
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if array.dtype.kind not in "fiubcO":
        return np.asarray(array)
    dtype = np.result_type(array.dtype, np.float32)
    return np.ma.filled(array.astype(dtype), np.nan)
