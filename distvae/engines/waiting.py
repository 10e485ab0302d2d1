"""Sums over rows that no gradient needs, computed for many steps at once.

On a GPU every operation costs a launch, whatever the number of rows.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

SUMMED = 8192
"""Rows that wait at most, and one batch more."""

Left = TypeVar("Left", bound=tuple[Tensor | None, ...])
"""A named tuple of tensors with a row for each row of a batch."""


class Waiting(Generic[Left]):
    """Quantities of the steps since the last sums."""

    def __init__(self, kind: Callable[..., Left]) -> None:
        self.kind = kind
        self.steps: list[Left] = []

    def add(self, left: Left) -> None:
        """Keep what a step leaves."""
        self.steps.append(left)

    @property
    def is_full(self) -> bool:
        """True once enough rows wait."""
        return sum(map(_rows, self.steps)) >= SUMMED

    def take(self) -> tuple[Left, int] | None:
        """Return what all steps have left as one, and the rows of the first; None without steps."""
        if not self.steps:
            return None
        steps, self.steps = self.steps, []
        joined = [_joined(parts) for parts in zip(*steps, strict=True)]
        return self.kind(*joined), _rows(steps[0])


def finite_steps(objective: Tensor, rows: int) -> Tensor:
    """Return the number of steps of so many rows before the first objective that is not finite."""
    finite_rows = objective.isfinite().cumprod(0).sum()
    return finite_rows // rows


def _rows(left: tuple[Tensor | None, ...]) -> int:
    assert left[0] is not None
    return len(left[0])


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    """Return the rows of all steps; None if there are none."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None
