"""Accumulate the values of many steps, and compute their sums over rows at once.

On a GPU, every operation costs a kernel launch, however few rows it has. No gradient needs these
sums.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

SUMMED = 8192
"""The number of accumulated rows at which sums are computed."""

Left = TypeVar("Left", bound=tuple[Tensor | None, ...])
"""A named tuple of tensors, with the rows of a batch as first dimension."""


class Waiting(Generic[Left]):
    """The values of the steps since the last sums."""

    def __init__(self, kind: Callable[..., Left]) -> None:
        self.kind = kind
        self.steps: list[Left] = []

    def add(self, left: Left) -> None:
        """Add the values of a step."""
        self.steps.append(left)

    @property
    def is_full(self) -> bool:
        """True once enough rows have accumulated."""
        return sum(map(_rows, self.steps)) >= SUMMED

    def take(self) -> tuple[Left, int] | None:
        """Return the concatenated values of all steps, and the rows of the first step.

        Return None without steps.
        """
        if not self.steps:
            return None
        steps, self.steps = self.steps, []
        joined = [_joined(parts) for parts in zip(*steps, strict=True)]
        return self.kind(*joined), _rows(steps[0])


def finite_steps(objective: Tensor, rows: int) -> Tensor:
    """Return the number of steps, of `rows` rows each, before the first objective that is not
    finite.
    """
    finite_rows = objective.isfinite().cumprod(0).sum()
    return finite_rows // rows


def _rows(left: tuple[Tensor | None, ...]) -> int:
    assert left[0] is not None
    return len(left[0])


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    """Concatenate the rows of all steps, or return None if a field is None in all steps."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None
