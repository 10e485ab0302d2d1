"""Arrays: names of their types, plain arrays, and statistics of the columns of a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
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


FLOOR = 1e-10
"""Added to values before the logarithm; the default `estep.floor` of encoders."""
TOGETHER = 2**18
"""Values that are read at a time, so that they stay in the processor's cache."""

Values = NDArray[np.float32]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Moments:
    """The number, mean and variance of the observed values of each column."""

    count: Counts
    mean: Doubles
    """NaN for columns without observed values; likewise for the variance."""
    variance: Doubles

    @classmethod
    def of(cls, block: Values) -> "Moments":
        """Return the moments of some rows; NaN marks missing values."""
        with np.errstate(invalid="ignore"):  # columns without observed values
            if not np.isnan(block).any():
                count = np.full(block.shape[1], len(block))
                mean = block.mean(0, dtype=np.float64)
                deviation = block - mean
            else:
                observed = ~np.isnan(block)
                count = observed.sum(0)
                mean = np.nansum(block, 0, dtype=np.float64) / count
                deviation = np.where(observed, block - mean, 0.0)
            return cls(count, mean, np.einsum("ij,ij->j", deviation, deviation) / count)

    def __add__(self, other: "Moments") -> "Moments":
        """Merge the moments of two sets of rows (Chan, Golub and LeVeque)."""
        count = self.count + other.count
        first, second = _zeroed(self), _zeroed(other)
        with np.errstate(invalid="ignore"):
            share = other.count / count
            step = second.mean - first.mean
            mean = first.mean + share * step
            squares = self.count * first.variance + other.count * second.variance
            variance = squares / count + (1 - share) * share * step * step
        return Moments(count, mean, variance)

    def record(self) -> dict[str, Any]:
        """Return the moments as JSON; null stands for a column without observed values."""
        mean, variance = _none_for_nan(self.mean), _none_for_nan(self.variance)
        return {"count": self.count.tolist(), "mean": mean, "variance": variance}

    @classmethod
    def read(cls, record: dict[str, Any]) -> "Moments":
        """Return the moments from JSON."""
        count = np.array(record["count"], np.int64)
        return cls(count, _doubles(record["mean"]), _doubles(record["variance"]))


def _zeroed(moments: Moments) -> Moments:
    """Return moments with NaN replaced by zero."""
    mean, variance = np.nan_to_num(moments.mean), np.nan_to_num(moments.variance)
    return Moments(moments.count, mean, variance)


@dataclass(frozen=True)
class Facts:
    """Statistics of the rows of a table that training needs before it begins."""

    rows: int
    low: Doubles
    """The smallest observed value of each column, or NaN if none was observed."""
    high: Doubles
    """The largest observed value of each column, or NaN if none was observed."""
    values: Moments
    logarithms: Moments | None
    """Moments of log(value + `FLOOR`); None if a value is negative."""

    @classmethod
    def of(cls, table: Values) -> "Facts":
        """Return the statistics of a table with at least one row."""
        step = max(1, TOGETHER // table.shape[1])
        blocks = (table[first : first + step] for first in range(0, len(table), step))
        return reduce(add, map(cls._of_block, blocks))

    @classmethod
    def _of_block(cls, block: Values) -> "Facts":
        low, high = np.fmin.reduce(block), np.fmax.reduce(block)
        logarithms = None
        if not (low < 0).any():
            logarithms = Moments.of(np.log(block + np.float32(FLOOR)))
        ranges = low.astype(np.float64), high.astype(np.float64)
        return cls(len(block), *ranges, Moments.of(block), logarithms)

    @property
    def missing(self) -> int:
        """The number of missing values."""
        return self.rows * len(self.low) - int(self.values.count.sum())

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest observed value, or NaN if none was observed."""
        return float(np.fmin.reduce(self.low)), float(np.fmax.reduce(self.high))

    def __add__(self, other: "Facts") -> "Facts":
        """Merge the statistics of two sets of rows."""
        both = (self.logarithms, other.logarithms)
        return Facts(
            self.rows + other.rows,
            np.fmin(self.low, other.low),
            np.fmax(self.high, other.high),
            self.values + other.values,
            None if both[0] is None or both[1] is None else both[0] + both[1],
        )

    def record(self) -> dict[str, Any]:
        """Return the statistics as JSON."""
        return {
            "rows": self.rows,
            "missing": self.missing,
            "low": _none_for_nan(self.low),
            "high": _none_for_nan(self.high),
            "values": self.values.record(),
            "logarithms": self.logarithms.record() if self.logarithms else None,
        }

    @classmethod
    def read(cls, record: dict[str, Any]) -> "Facts":
        """Return the statistics from JSON."""
        low, high = _doubles(record["low"]), _doubles(record["high"])
        logarithms = record["logarithms"]
        return cls(
            record["rows"],
            low,
            high,
            Moments.read(record["values"]),
            Moments.read(logarithms) if logarithms else None,
        )


def _none_for_nan(values: Doubles) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _doubles(values: Sequence[float | None]) -> Doubles:
    return np.array([math.nan if value is None else value for value in values], np.float64)
