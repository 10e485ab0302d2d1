"""Columns of Arrow tables from NumPy arrays."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def rows_column(values: NDArray[np.number], width: int) -> "pa.FixedSizeListArray":
    """Return numbers as a column of rows with this width, without a copy.

    `pyarrow.array` would import pandas, which takes longer than a short training.
    """
    import pyarrow as pa

    flat = np.ascontiguousarray(values).ravel()
    kind, buffer = pa.from_numpy_dtype(flat.dtype), pa.py_buffer(flat)
    numbers = pa.Array.from_buffers(kind, len(flat), [None, buffer])
    return pa.FixedSizeListArray.from_arrays(numbers, width)
