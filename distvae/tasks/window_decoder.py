"""What a model makes of the windows of a restoration, given their posteriors."""

import math
from dataclasses import dataclass

import torch

from distvae.config import Config
from distvae.data.windows.patches import Grid
from distvae.interface import AnyModel, Expects, Posterior, expect
from distvae.numerics.array_types import Floats
from distvae.numerics.lanes import RowNumbers
from distvae.numerics.noise import RESTORATION, Noise

COVER = 256
"""Decoded draws that each restored value is the mean of, those of all windows that cover it."""


@dataclass(frozen=True)
class WindowDecoder:
    """Decodes windows from their posteriors."""

    draws: int
    """States drawn for each window; 0 decodes the mean of the posterior."""
    seed: int

    @classmethod
    def of(cls, config: Config, grid: Grid) -> "WindowDecoder":
        """Return the decoder that a configuration asks for."""
        draws = getattr(config.model, "restored", "mean") == "draws"
        covering = math.prod(grid.window) / grid.stride ** len(grid.window)
        return cls(math.ceil(COVER / covering) if draws else 0, config.train.seed)

    def __call__(self, model: AnyModel, q: Posterior, rows: RowNumbers) -> Floats:
        """Return E_q[mu(z)], (B, D), of the windows of these numbers."""
        if not self.draws or isinstance(q, Expects):
            return expect(q, model.decode).cpu().numpy()
        row = torch.from_numpy(rows).to(q.code.device)
        noises = (Noise(self.seed, RESTORATION - draw, row) for draw in range(self.draws))
        # One at a time: 256 draws of a thousand windows would take much memory.
        total = sum((expect(q, model.decode, 1, noise) for noise in noises), torch.zeros(()))
        return (total / self.draws).cpu().numpy()
