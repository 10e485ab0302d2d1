"""Warn about columns that lose their variation in float32."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from distvae.numerics.array_types import Doubles

BLOCK = 2**18
"""Values that are read at a time."""
STEP = float(np.finfo(np.float32).eps)
"""The distance from 1 to the next number of float32."""
LOST = 0.01
"""The largest step of float32 that is accepted, relative to a column's standard deviation."""
ROUNDED = 16 * float(np.finfo(np.float64).eps)
"""The relative range below which a column of float64 counts as constant up to rounding."""
CALLER = 4
"""The stack level of the caller of `fit`."""


def warn_of_lost_digits(table: NDArray[np.generic], names: Sequence[str] | None) -> None:
    """Warn if float32 cannot resolve the values of a column of 64-bit numbers."""
    if table.dtype.itemsize < 8:
        return
    size, deviation = _sizes(table)
    lost = np.divide(STEP * size, deviation, out=np.zeros_like(size), where=deviation > 0)
    count = int((lost > LOST).sum())
    if count:
        worst = int(np.argmax(lost))
        name = f"column {worst}" if names is None else f"column '{names[worst]}'"
        among = f", the worst of {count}," if count > 1 else ""
        warnings.warn(
            f"X: {name}{among} has values of up to {size[worst]:.6g} and a standard deviation of"
            f" {deviation[worst]:.2g}, but float32, in which models compute, has steps of"
            f" about {STEP * size[worst]:.1g} there; subtract its mean",
            stacklevel=CALLER,
        )


def _sizes(table: NDArray[np.generic]) -> tuple[Doubles, Doubles]:
    """Return the largest magnitude and the standard deviation of each column.

    The standard deviation of a constant column is 0. Missing values (NaN) are left out.
    """
    step = max(1, BLOCK // table.shape[1])
    low, high = np.full((2, table.shape[1]), np.nan)
    found = StandardScaler()
    for start in range(0, len(table), step):
        block = table[start : start + step].astype(np.float64)
        low, high = np.fmin(low, np.fmin.reduce(block)), np.fmax(high, np.fmax.reduce(block))
        with np.errstate(invalid="ignore"):  # columns without observed values
            found.partial_fit(block)
    size = np.fmax(np.abs(low), np.abs(high))
    varies = high - low > ROUNDED * size
    return size, np.where(varies, np.sqrt(found.var_), 0.0)
