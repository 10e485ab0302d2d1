"""Measure a code cheaply enough for every epoch: its sparsity, and the atoms in use."""

import math

from torch import Tensor

from distvae.numerics.figures import declare

SPARSITY = declare("sparsity", "hoyer", "effective_atoms", "live_atoms")
"""The figures of these measures."""
LIVE = 0.1
"""The share of the strongest column's root mean square above which a column is in use."""


def hoyer(code: Tensor) -> Tensor:
    """Return Hoyer's sparsity of each row, from 0 (all values equal) to 1 (a single value).

    A row of zeros has NaN. A code of width one, for which the formula is 0 / 0, has 0.
    """
    size = math.sqrt(code.shape[-1])
    return (size - effective_atoms(code).sqrt()) / ((size - 1) or 1)


def effective_atoms(code: Tensor) -> Tensor:
    """Return (l1 / l2)^2 of each row: the number of equal values that would be as spread out.

    A row of zeros has NaN.
    """
    magnitudes = code.abs()
    # divided by the largest first, because the squares of the smallest floats are zero
    relative = magnitudes / magnitudes.amax(-1, keepdim=True)
    return relative.sum(-1).square() / relative.square().sum(-1)


def live_atoms(code: Tensor) -> Tensor:
    """Return which columns of a code are in use.

    Collapsed columns of a VAE have a few hundredths of the strongest column's root mean square, and
    nearly nothing if the variance is learned.
    """
    strength = code.square().mean(0).sqrt()
    return strength > LIVE * strength.max()
