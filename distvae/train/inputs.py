"""Arrays that a trained model is given by a caller, refused where they cannot be what it was
trained on.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from distvae.config import Config
from distvae.data.dataset import LazyRows, Rows
from distvae.data.family import family_of
from distvae.files.refusal import Refusal
from distvae.models.likelihoods import LIKELIHOODS

BEYOND = 100
"""So many times the largest value of training is no data of the same units."""


@dataclass(frozen=True)
class InputFormat:
    """What the rows of an array have to be."""

    name: str
    """What a caller calls the array."""
    width: int
    least: float = -math.inf
    most: float = math.inf
    largest: float = math.inf
    """Of the values that were trained on, without their signs."""
    gaps: bool = False
    """Whether values may be missing."""
    unit: str = "row"
    """What one data point is."""

    @classmethod
    def by(
        cls, config: Config, width: int, facts: dict[str, Any], name: str = "x"
    ) -> "InputFormat":
        """What a run with a configuration and facts was trained on; runs from before do not know
        their range.
        """
        least, most = LIKELIHOODS[config.model.likelihood].support
        values = family_of(config.data).values
        least = max(least, 0.0) if getattr(config.estep, "input", "raw") != "raw" else least
        if math.isfinite(values.low) or math.isfinite(values.high):
            least, most = values.low, values.high
        largest = max(map(abs, facts.get("range", ())), default=math.inf) or math.inf
        unit = values.row_name or str(facts.get("unit", "row"))
        return cls(name, width, least, most, largest, values.may_be_missing, unit)

    def table(self, given: ArrayLike | Rows | Tensor) -> Rows:
        """Return an array of numbers (rows, width); its values are looked at when they are used."""
        rows = self._rows(given)
        shape = tuple(rows.shape)
        if len(shape) != 2:
            raise Refusal(
                f"{self.name}: {self._told(shape)}; an array {self} expected{self._hint(shape)}"
            )
        if shape[1] != self.width:
            raise Refusal(f"{self.name}: rows of {shape[1]:,} values; an array {self} expected")
        if not shape[0]:
            raise Refusal(f"{self.name}: no rows; an array {self} with one or more expected")
        if (kind := np.asarray(rows[:1]).dtype).kind not in "fiub":
            raise Refusal(f"{self.name}: holds {kind}; real numbers expected")
        return rows

    def _rows(self, given: ArrayLike | Rows | Tensor) -> Rows:
        """The array itself where it is one, in memory or not; what only looks like one becomes
        one.
        """
        if isinstance(given, Tensor):
            return given.numpy(force=True)
        if isinstance(given, LazyRows):
            return given
        try:
            return np.asarray(given)
        except ValueError as error:
            raise Refusal(
                f"{self.name}: rows of different lengths; an array {self} expected"
            ) from error

    def __str__(self) -> str:
        """For a person."""
        return (
            f"({self.unit}s, {self.width})"
            if self.unit != "power spectrum"
            else f"(power spectra, {self.width})"
        )

    def _told(self, shape: tuple[int, ...]) -> str:
        if len(shape) == 1 and self.unit == "power spectrum":
            return f"{shape[0]:,} values in a row, as of a signal"
        return f"{shape[0]:,} values in a row" if len(shape) == 1 else f"{len(shape)} axes, {shape}"

    def _hint(self, shape: tuple[int, ...]) -> str:
        if len(shape) == 1 and self.unit == "power spectrum":
            return "; 'distvae encode RUN FOLDER' takes recordings"
        if math.prod(shape) == self.width:
            return f", such as {self.name}.reshape(1, -1)"
        if len(shape) > 2 and math.prod(shape[1:]) == self.width:
            return f", such as {self.name}.reshape(len({self.name}), -1)"
        return ""

    def values(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return some rows once their values were seen to be such as the model was trained on."""
        if not self.gaps and np.isnan(block).any():
            raise Refusal(
                f"{self.name}: holds NaN; finite values expected: in data of this kind none is"
                " missing"
            )
        low, high = (
            float(f(block, axis=None, initial=math.nan)) for f in (np.fmin.reduce, np.fmax.reduce)
        )
        for value in (low, high):
            if math.isinf(value):
                raise Refusal(f"{self.name}: holds an infinite value; finite ones expected")
            if value < self.least or value > self.most:
                wanted = f"at least {self.least:g}" + (
                    f" and at most {self.most:g}" if self.most < math.inf else ""
                )
                raise Refusal(f"{self.name}: holds {value:g}; {wanted} expected, as in training")
            if abs(value) > BEYOND * self.largest:
                times = f"{abs(value) / self.largest:,.0f} times the largest value of training"
                raise Refusal(
                    f"{self.name}: holds {value:g}, {times}; values in the same units expected"
                )
        return block
