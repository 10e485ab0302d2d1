"""What is cheap enough to watch during training: how sparse a code is, how much of it lives."""

import math

from torch import Tensor


def hoyer(code: Tensor) -> Tensor:
    """Hoyer's sparsity of each row, from 0 (all values equal) to 1 (one value); NaN for a row of
    zeros.

    Where a row has one value only, 0 / 0, it is 0: nothing was left out of the code.
    """
    size = math.sqrt(code.shape[-1])
    return (size - effective_atoms(code).sqrt()) / ((size - 1) or 1)


def effective_atoms(code: Tensor) -> Tensor:
    """(l1 / l2)^2 of each row: how many equal values would be as spread; NaN for a row of zeros."""
    relative = code.abs() / code.abs().amax(
        -1, keepdim=True
    )  # squares of the smallest floats are zero
    return relative.sum(-1).square() / relative.square().sum(-1)


def live_atoms(code: Tensor, share: float = 0.1) -> Tensor:
    """Which columns of a code live: root mean square above a share of the strongest column's.

    A VAE's collapsed values keep a few hundredths, those of a learnable variance nearly nothing.
    """
    strength = code.square().mean(0).sqrt()
    return strength > share * strength.max()
