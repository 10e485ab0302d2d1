"""Metrics of codes that are cheap enough for every epoch: sparsity, and the atoms in use."""

import math

from torch import Tensor

from distvae.numerics.figures import declare

SPARSITY = declare("sparsity", "hoyer", "effective_atoms", "live_atoms")
"""The names of these metrics."""
LIVE = 0.1
"""The share of the strongest column's root mean square above which a column is in use."""


def hoyer(code: Tensor) -> Tensor:
    """Return Hoyer's sparsity of each row, from 0 (all values equal) to 1 (a single value).

    The sparsity of a row of zeros is NaN. The sparsity of a code of width one is 0.
    """
    size = math.sqrt(code.shape[-1])
    return (size - effective_atoms(code).sqrt()) / ((size - 1) or 1)


def effective_atoms(code: Tensor) -> Tensor:
    """Return (l1 / l2)^2 of each row, which is n for a row with n equal non-zero values.

    The result for a row of zeros is NaN.
    """
    magnitudes = code.abs()
    # Scale by the largest value first, because the squares of tiny floats underflow to zero.
    relative = magnitudes / magnitudes.amax(-1, keepdim=True)
    return relative.sum(-1).square() / relative.square().sum(-1)


def live_atoms(code: Tensor) -> Tensor:
    """Return which columns of a code are in use.

    The root mean square of a collapsed column of a VAE is a few hundredths of the strongest
    column's, and nearly zero if the variance is learned.
    """
    strength = code.square().mean(0).sqrt()
    return strength > LIVE * strength.max()
