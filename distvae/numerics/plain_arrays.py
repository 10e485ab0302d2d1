"""Tensors and masked arrays as plain arrays of NumPy."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from distvae.numerics.array_types import AnyArray

T = TypeVar("T")


def plain_array(array: T) -> T | AnyArray:
    """Return a tensor or a masked array as a plain array; anything else as it is.

    NumPy has no bfloat16, so such a tensor becomes float32.
    """
    if isinstance(array, Tensor):
        tensor = array.float() if array.dtype == torch.bfloat16 else array
        plain: AnyArray = tensor.numpy(force=True)
        return plain
    return without_mask(array)


def without_mask(array: T) -> T | AnyArray:
    """Return a masked array as a plain one, in which NaN stands for a masked value.

    Anything else is returned as it is, and an array of other than numbers without its mask.
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if array.dtype.kind not in "fiubcO":
        return np.asarray(array)
    dtype = np.result_type(array.dtype, np.float32)
    return np.ma.filled(array.astype(dtype), np.nan)
