"""Sparsity of the codes of a split, gathered block by block."""

import torch
from torch import Tensor

from distvae.numerics.metrics import declare, effective_atoms, hoyer, live_atoms

declare("sparsity", "dead_atoms")
ACTIVE = 1e-3
"""Frames within 30 dB of the loudest of their file are active."""


def frame_means(code: Tensor, energy: Tensor) -> dict[str, float]:
    """Return means over the frames of a file, except frames whose code is zero."""
    sparsity = hoyer(code)
    is_active = energy >= ACTIVE * energy.max()
    return {
        "hoyer": float(sparsity.nanmean()),
        "hoyer_active": float(sparsity[is_active].nanmean()),
        "effective_atoms": float(effective_atoms(code).nanmean()),
    }


class CodeStrength:
    """The root mean square of each value of the codes of some rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.squares = torch.zeros(())

    def add(self, code: Tensor) -> None:
        """Include the codes of some more rows."""
        self.rows += len(code)
        self.squares = self.squares + code.double().square().sum(0)

    def count_atoms(self) -> dict[str, float]:
        """Return the numbers of live and dead values of the code."""
        live = live_atoms((self.squares / self.rows).sqrt()[None])
        return {"live_atoms": float(live.sum()), "dead_atoms": float((~live).sum())}
