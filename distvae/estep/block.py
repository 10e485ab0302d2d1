"""The block of rows that was visited last: its states stay beside the model while minibatches are
cut from it.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Block(NamedTuple):
    """Some rows and their words. Row numbers stay on the host; words are where the model is."""

    rows: Tensor
    words: Tensor
    order: Tensor
    """Which sorts the rows."""

    @classmethod
    def of(cls, rows: Tensor, words: Tensor) -> "Block":
        """Return the block of these rows, which may be in any order."""
        return cls(rows, words, rows.argsort())

    def find(self, rows: Tensor) -> Tensor | None:
        """Return the words of these rows, or None unless all of them are here."""
        if not len(self.rows):
            return None
        place = torch.searchsorted(self.rows, rows, sorter=self.order).clamp(max=len(self.rows) - 1)
        index = self.order[place]
        return (
            self.words[index.to(self.words.device, non_blocking=True)]
            if torch.equal(self.rows[index], rows)
            else None
        )
