"""Check the arrays that a caller passes to a trained model: shape, type, range, missing values."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from distvae.config import Amortised, Config
from distvae.data.dataset import LazyRows, Rows
from distvae.data.family import family_of
from distvae.files.refusal import Refusal
from distvae.models.likelihoods import support_of
from distvae.numerics.array_types import plain_array
from distvae.train.documents import RunInfo

MAX_RATIO = 100
"""The ratio to the largest training value above which data are assumed to have other units."""
SPECTRUM = "power spectrum"
"""The name of a row of speech data."""


@dataclass(frozen=True)
class InputFormat:
    """The format of rows that a trained model accepts."""

    name: str
    """The name of the array in messages."""
    width: int
    low: float = -math.inf
    high: float = math.inf
    largest: float = math.inf
    """The largest magnitude in the training data."""
    may_be_missing: bool = False
    """Whether values may be NaN."""
    unit: str = "row"
    """The name of one data point."""

    @classmethod
    def of_run(cls, config: Config, width: int, info: RunInfo, name: str = "x") -> "InputFormat":
        """Return the format of the data that a run was trained on.

        Old runs did not record the range of their data.
        """
        low, high = support_of(config.model)
        values = family_of(config.data).values
        if isinstance(config.estep, Amortised) and config.estep.takes_logarithm:
            low = max(low, 0.0)
        if math.isfinite(values.low) or math.isfinite(values.high):
            low, high = values.low, values.high
        largest = max(map(abs, info.get("range", ())), default=math.inf) or math.inf
        unit = values.row_name or str(info.get("unit", "row"))
        return cls(name, width, low, high, largest, values.may_be_missing, unit)

    def check_table(self, array: ArrayLike | Rows | Tensor) -> Rows:
        """Check the shape and type of an array (rows, width). Values are checked when used."""
        rows = self._as_rows(array)
        shape = tuple(rows.shape)
        if len(shape) != 2:
            raise Refusal(
                f"{self.name}: {self._describe(shape)}; an array {self} expected{self._hint(shape)}"
            )
        if shape[1] != self.width:
            raise Refusal(f"{self.name}: rows of {shape[1]:,} values; an array {self} expected")
        if not shape[0]:
            raise Refusal(f"{self.name}: no rows; an array {self} with one or more expected")
        dtype = np.asarray(rows[:1]).dtype
        if dtype.kind not in "fiub":
            raise Refusal(f"{self.name}: holds {dtype}; real numbers expected")
        return rows

    def _as_rows(self, array: ArrayLike | Rows | Tensor) -> Rows:
        """Return rows that are read lazily unchanged, and convert other values to an array."""
        if isinstance(array, LazyRows):
            return array
        try:
            return np.asarray(plain_array(array))
        except ValueError as error:
            raise Refusal(
                f"{self.name}: rows of different lengths; an array {self} expected"
            ) from error

    def __str__(self) -> str:
        """Describe the expected shape."""
        plural = "power spectra" if self.unit == SPECTRUM else f"{self.unit}s"
        return f"({plural}, {self.width})"

    def _describe(self, shape: tuple[int, ...]) -> str:
        if len(shape) != 1:
            return f"{len(shape)} axes, {shape}"
        hint = ", as of a signal" if self.unit == SPECTRUM else ""
        return f"{shape[0]:,} values in a row{hint}"

    def _hint(self, shape: tuple[int, ...]) -> str:
        if len(shape) == 1 and self.unit == SPECTRUM:
            return "; 'distvae encode RUN FOLDER' takes recordings"
        if math.prod(shape) == self.width:
            return f", such as {self.name}.reshape(1, -1)"
        if len(shape) > 2 and math.prod(shape[1:]) == self.width:
            return f", such as {self.name}.reshape(len({self.name}), -1)"
        return ""

    def check_values(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return some rows, or raise `Refusal` if their values do not fit the training data."""
        if not self.may_be_missing and np.isnan(block).any():
            raise Refusal(
                f"{self.name}: holds NaN; finite values expected: in data of this kind none is"
                " missing"
            )
        lowest = float(np.fmin.reduce(block, axis=None, initial=math.nan))
        highest = float(np.fmax.reduce(block, axis=None, initial=math.nan))
        for value in (lowest, highest):
            self._check_value(value)
        return block

    def _check_value(self, value: float) -> None:
        if math.isinf(value):
            raise Refusal(
                f"{self.name}: holds an infinite value, or one beyond float32; finite ones expected"
            )
        if value < self.low or value > self.high:
            expected = f"at least {self.low:g}"
            if self.high < math.inf:
                expected += f" and at most {self.high:g}"
            raise Refusal(f"{self.name}: holds {value:g}; {expected} expected, as in training")
        if abs(value) > MAX_RATIO * self.largest:
            ratio = f"{abs(value) / self.largest:,.0f} times the largest value of training"
            raise Refusal(
                f"{self.name}: holds {value:g}, {ratio}; values in the same units expected"
            )
