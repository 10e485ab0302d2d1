"""Facts about the columns of a table: what is missing, ranges, means and variances."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from distvae.numerics.array_types import Doubles

FLOOR = 1e-10
"""Added to values before their logarithm is taken, as encoders do by default."""
TOGETHER = 2**18
"""Values that are looked at together, so that they stay in a processor's cache."""

Values = NDArray[np.float32]
Counts = NDArray[np.int64]


class MomentsRecord(TypedDict):
    """Moments in JSON; null stands for a column of which nothing was observed."""

    count: list[int]
    mean: list[float | None]
    variance: list[float | None]


class FactsRecord(TypedDict):
    """Facts in JSON."""

    rows: int
    missing: int
    low: list[float | None]
    high: list[float | None]
    values: MomentsRecord
    logarithms: MomentsRecord | None


@dataclass(frozen=True)
class Moments:
    """Number of observed values of each column, their mean, and their variance over rows."""

    count: Counts
    mean: Doubles
    """NaN where nothing was observed, like the variance."""
    variance: Doubles

    @classmethod
    def of(cls, block: Values) -> "Moments":
        """Return the moments of some rows; NaN is missing."""
        with np.errstate(invalid="ignore"):  # of columns without observed values
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
        """Return the moments of the rows of both, by the formula of Chan, Golub and LeVeque."""
        count = self.count + other.count
        first, second = _zeroed(self), _zeroed(other)
        with np.errstate(invalid="ignore"):
            share = other.count / count
            step = second.mean - first.mean
            mean = first.mean + share * step
            squares = self.count * first.variance + other.count * second.variance
            variance = squares / count + (1 - share) * share * step * step
        return Moments(count, mean, variance)

    def record(self) -> MomentsRecord:
        """Return the moments as JSON has them."""
        mean, variance = _none_for_nan(self.mean), _none_for_nan(self.variance)
        return {"count": self.count.tolist(), "mean": mean, "variance": variance}

    @classmethod
    def read(cls, record: MomentsRecord) -> "Moments":
        """Return recorded moments."""
        count = np.array(record["count"], np.int64)
        return cls(count, _doubles(record["mean"]), _doubles(record["variance"]))


def _zeroed(moments: Moments) -> Moments:
    """Return moments with zeros in the place of NaN."""
    mean, variance = np.nan_to_num(moments.mean), np.nan_to_num(moments.variance)
    return Moments(moments.count, mean, variance)


@dataclass(frozen=True)
class Facts:
    """Statistics of the rows of a table that training needs before it begins."""

    rows: int
    low: Doubles
    """The smallest observed value of each column, NaN if there is none; `high` likewise."""
    high: Doubles
    values: Moments
    logarithms: Moments | None
    """Moments of the logarithms of values plus `FLOOR`; None if a value is negative."""

    @classmethod
    def of(cls, table: Values) -> "Facts":
        """Return the facts about all rows of a table, of which there is one at least."""
        step = max(1, TOGETHER // table.shape[1])
        blocks = (table[first : first + step] for first in range(0, len(table), step))
        return add_facts([cls._of_block(block) for block in blocks])

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
        """Return how many values are missing."""
        return self.rows * len(self.low) - int(self.values.count.sum())

    @property
    def range(self) -> tuple[float, float]:
        """Return the smallest and the largest observed value, or NaN if none is observed."""
        return float(np.fmin.reduce(self.low)), float(np.fmax.reduce(self.high))

    def __add__(self, other: "Facts") -> "Facts":
        """Return the facts about the rows of both."""
        both = (self.logarithms, other.logarithms)
        return Facts(
            self.rows + other.rows,
            np.fmin(self.low, other.low),
            np.fmax(self.high, other.high),
            self.values + other.values,
            None if both[0] is None or both[1] is None else both[0] + both[1],
        )

    def record(self) -> FactsRecord:
        """Return the facts as JSON has them."""
        return {
            "rows": self.rows,
            "missing": self.missing,
            "low": _none_for_nan(self.low),
            "high": _none_for_nan(self.high),
            "values": self.values.record(),
            "logarithms": self.logarithms.record() if self.logarithms else None,
        }

    @classmethod
    def read(cls, record: FactsRecord) -> "Facts":
        """Return recorded facts."""
        low, high = _doubles(record["low"]), _doubles(record["high"])
        logarithms = record["logarithms"]
        return cls(
            record["rows"],
            low,
            high,
            Moments.read(record["values"]),
            Moments.read(logarithms) if logarithms else None,
        )


def add_facts(parts: Sequence[Facts]) -> Facts:
    """Return the facts about the rows of all parts, added in their order."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _none_for_nan(values: Doubles) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _doubles(values: Sequence[float | None]) -> Doubles:
    return np.array([math.nan if value is None else value for value in values], np.float64)
