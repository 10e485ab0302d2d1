"""What is cheap enough to watch during training: how sparse a code is, how much of it lives."""

import math

import torch
from torch import Tensor


def hoyer(code: Tensor) -> Tensor:
    """Hoyer's sparsity of each row, from 0 (all values equal) to 1 (one value); NaN for a row of zeros."""
    size = math.sqrt(code.shape[-1])
    if size == 1:
        return code.new_full(code.shape[:-1], torch.nan)
    return (size - effective_atoms(code).sqrt()) / (size - 1)


def effective_atoms(code: Tensor) -> Tensor:
    """(l1 / l2)^2 of each row: how many equal values would be as spread; NaN for a row of zeros."""
    relative = code.abs() / code.abs().amax(-1, keepdim=True)  # squares of the smallest floats are zero
    return relative.sum(-1).square() / relative.square().sum(-1)


def live_atoms(code: Tensor, share: float = 0.1) -> Tensor:
    """Which columns of a code live: root mean square above a share of the strongest column's.

    A VAE's collapsed values keep a few hundredths, those of a learnable variance nearly nothing.
    """
    strength = code.square().mean(0).sqrt()
    return strength > share * strength.max()
