"""The block of rows that was visited last: its states stay beside the model while minibatches are
cut from it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from distvae.models.truncated import KeptStates
from distvae.numerics.lanes import find_in_order


class Block(NamedTuple):
    """Some rows and their states. Row numbers stay on the host; states are where the model is."""

    rows: Tensor
    states: KeptStates
    order: Tensor
    """The order that sorts the rows."""

    @classmethod
    def of(cls, rows: Tensor, states: KeptStates) -> "Block":
        """Return the block of these rows, which may be in any order."""
        return cls(rows, states, rows.argsort())

    def find(self, rows: Tensor) -> KeptStates | None:
        """Return the states of these rows, or None unless all of them are here.

        Rows that follow each other as they did in the block get views, others copies.
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
