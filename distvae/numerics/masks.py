"""Masked arrays of NumPy, whose masked values are missing ones."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def without_mask(array: T) -> T | NDArray[Any]:
    """Return a masked array as a plain one, in which NaN stands for a masked value.

    Anything else is returned as it is, and an array of other than numbers without its mask.
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if array.dtype.kind not in "fiubcO":
        return np.asarray(array)
    dtype = np.result_type(array.dtype, np.float32)
    return np.ma.filled(array.astype(dtype), np.nan)
