"""The level of white noise in rows of data, from the smallest variances of their directions.

Signals vary in some directions of a window, white noise equally in all. So the smallest
eigenvalues of the covariance come from the noise alone. The largest set of them whose mean is at
most its median is taken (Chen, Zhu and Heng, "An efficient statistical method for image noise level
estimation", ICCV 2015).
"""

import numpy as np

from distvae.data.dataset import Rows
from distvae.numerics.array_types import Doubles

BLOCK = 1024
"""Rows that are read together."""


def noise_floor(rows: Rows) -> float:
    """Return the standard deviation of the white noise in rows (N, D) without missing values; 0
    from too few rows to vary in D directions.
    """
    if len(rows) <= rows.shape[1]:
        return 0.0
    variances = np.linalg.eigvalsh(covariance(rows))
    counts = np.arange(1, len(variances) + 1)
    averages = variances.cumsum() / counts
    medians = (variances[(counts - 1) // 2] + variances[counts // 2]) / 2
    even = np.flatnonzero(averages <= medians)
    return float(np.sqrt(max(averages[even[-1]], 0.0)))


def covariance(rows: Rows) -> Doubles:
    """Return the covariance (D, D) of rows, which are read block by block."""
    total, products = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK].astype(np.float64)
        total += block.sum(0)
        products += block.T @ block
    mean = total / len(rows)
    covariance: Doubles = products / len(rows) - np.outer(mean, mean)
    return covariance
