"""The sizes and the data of the models whose steps are timed beside a peer's."""

import torch
from torch import Tensor

BATCH = 32
BATCHES = 128
"""Batches that are trained on again and again."""
SIDE = 28
PIXELS = SIDE * SIDE
HIDDEN = 400
LATENT = 200
RATE = 1e-3


def random_batches() -> list[Tensor]:
    """Return batches of rows of pixels in [0, 1]."""
    draws = torch.Generator().manual_seed(0)
    return [torch.rand(BATCH, PIXELS, generator=draws) for _ in range(BATCHES)]
