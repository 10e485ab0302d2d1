"""Loops over the values of observations, compiled when first called: log densities, and their
gradients in place of a decoder's output.

`likelihoods` says the same in plain torch. Each loop takes x (B, D), the output (B, D) and the mask
of what was observed, or None. It returns the sum of log p(x_d | z), and replaces the output by the
gradient of the weighted sum.
"""

import math

from distvae.engines.elementary import Mask, exp, log
from distvae.models.compiling import compiled
from distvae.models.likelihoods import LEAST_LOG_POWER
from distvae.numerics.array_types import Floats


@compiled
def itakura_saito(x: Floats, output: Floats, mask: Mask | None, weight: float) -> float:
    """Sum log densities of powers, exponential with mean exp(output)."""
    real = output.dtype.type
    one, share, total = real(1), real(weight), 0.0
    least = real(LEAST_LOG_POWER)
    for b in range(output.shape[0]):
        density = real(0)
        for d in range(output.shape[1]):
            power = max(output[b, d], least)
            ratio = x[b, d] * exp(-power)
            value, gradient = -power - ratio, share * (ratio - one)
            gradient = gradient if output[b, d] >= least else real(0)
            if mask is not None:
                value = value if mask[b, d] else real(0)
                gradient = gradient if mask[b, d] else real(0)
            density += value
            output[b, d] = gradient
        total += float(density)
    return total


@compiled
def bernoulli(x: Floats, output: Floats, mask: Mask | None, weight: float) -> float:
    """Sum log densities of values in [0, 1], given logits."""
    real = output.dtype.type
    half, one, share, total = real(0.5), real(1), real(weight), 0.0
    for b in range(output.shape[0]):
        density = real(0)
        for d in range(output.shape[1]):
            logit = output[b, d]
            p = one / (one + exp(-logit))
            size = abs(logit)
            value = x[b, d] * logit - half * (logit + size) - log(one + exp(-size))
            gradient = share * (x[b, d] - p)
            if mask is not None:
                value = value if mask[b, d] else real(0)
                gradient = gradient if mask[b, d] else real(0)
            density += value
            output[b, d] = gradient
        total += float(density)
    return total


@compiled
def gaussian(x: Floats, output: Floats, mask: Mask | None, weight: float, variance: float) -> float:
    """Sum log densities of values with a common variance."""
    real = output.dtype.type
    share, total, count = real(weight / variance), 0.0, 0
    for b in range(output.shape[0]):
        distance = real(0)
        for d in range(output.shape[1]):
            error = x[b, d] - output[b, d]
            if mask is not None:
                error = error if mask[b, d] else real(0)
                count += mask[b, d]
            distance += error * error
            output[b, d] = share * error
        total += float(distance)
    if mask is None:
        count = x.size
    return -0.5 * (total / variance + count * math.log(2 * math.pi * variance))
