"""The last block of rows that was searched. Its states stay on the model's device while its
minibatches are trained.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from distvae.models.truncated import KeptStates
from distvae.numerics.rows import find_in_order


class Block(NamedTuple):
    """Some rows and their states. Row numbers are on the host, states are on the model's device."""

    rows: Tensor
    states: KeptStates
    order: Tensor
    """The permutation that sorts the rows."""

    @classmethod
    def of(cls, rows: Tensor, states: KeptStates) -> "Block":
        """Return a block of rows, which may be in any order."""
        return cls(rows, states, rows.argsort())

    def find(self, rows: Tensor) -> KeptStates | None:
        """Return the states of rows, or None unless all rows are in the block.

        If the rows are a slice of the block, the states are a view; otherwise they are copied.
        """
        if (part := find_in_order(self.rows.numpy(), rows.numpy())) is not None:
            return self.states.of_rows(part)
        if not len(self.rows):
            return None
        place = torch.searchsorted(self.rows, rows, sorter=self.order).clamp(max=len(self.rows) - 1)
        index = self.order[place]
        if not torch.equal(self.rows[index], rows):
            return None
        return self.states.of_rows(index.to(self.states.words.device, non_blocking=True))
