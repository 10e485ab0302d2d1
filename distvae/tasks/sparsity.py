"""How sparse the codes of a split are, gathered block by block."""

import torch
from torch import Tensor

from distvae.numerics.measures import effective_atoms, hoyer, live_atoms

ACTIVE = 1e-3  # a frame within 30 dB of its file's loudest is active


def frame_means(code: Tensor, energy: Tensor) -> dict[str, float]:
    """Means over the frames of a file, frames coded as zero left out."""
    every = hoyer(code)
    return {
        "hoyer": float(every.nanmean()),
        "hoyer_active": float(every[energy >= ACTIVE * energy.max()].nanmean()),
        "effective_atoms": float(effective_atoms(code).nanmean()),
    }


class CodeStrength:
    """The root mean square of each value of a code over everything seen."""

    def __init__(self) -> None:
        self.rows = 0
        self.squares = torch.zeros(())

    def see(self, code: Tensor) -> None:
        """Take some more rows into account."""
        self.rows += len(code)
        self.squares = self.squares + code.double().square().sum(0)

    def atoms(self) -> dict[str, float]:
        """How many values of the code live and how many are dead."""
        live = live_atoms((self.squares / self.rows).sqrt()[None])
        return {"live_atoms": float(live.sum()), "dead_atoms": float((~live).sum())}
