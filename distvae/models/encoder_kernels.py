"""Loops for the draws, the inputs and the layers of models with an encoder, compiled when first
called.

`numerics.noise`, `estep.amortised` and `nets` say the same in plain torch. Shapes: B rows, D values
of an observation, H values of a code, K values of a layer.
"""

import math

import numpy as np
from numpy.typing import NDArray

from distvae.models.compiling import compiled, inlined
from distvae.models.elementary import Floats, Mask, cosine, log, tanh

Integers = NDArray[np.int64]

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@inlined
def _mix(z: np.uint64) -> np.uint64:
    """Apply SplitMix64's finaliser, as `numerics.noise` does."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
    return z ^ (z >> np.uint64(31))


@inlined
def _middle(word: np.uint64) -> np.float32:
    """Map 23 bits to the middle of their cell in (0, 1)."""
    return (np.float32(np.int32(word)) + np.float32(0.5)) * np.float32(2.0**-23)


@compiled
def draw_uniform(seeds: Integers, out: Floats) -> None:
    """Fill (B, H) with the uniform draws of rows (`Noise.seeds`)."""
    for b in range(out.shape[0]):
        start = _mix(np.uint64(seeds[b]))
        for h in range(out.shape[1]):
            word = _mix(start + np.uint64(h + 1) * np.uint64(GOLDEN))
            out[b, h] = _middle(word >> np.uint64(41))


@compiled
def draw_normal(seeds: Integers, out: Floats) -> None:
    """Fill (B, H) with the standard normal draws of rows (`Noise.seeds`)."""
    turn = np.float32(2 * math.pi)
    for b in range(out.shape[0]):
        start = _mix(np.uint64(seeds[b]))
        for h in range(out.shape[1]):
            word = _mix(start + np.uint64(h + 1) * np.uint64(GOLDEN))
            radius = np.sqrt(np.float32(-2) * log(_middle(word >> np.uint64(41))))
            out[b, h] = radius * cosine(turn * _middle(word & np.uint64(0x7FFFFF)))


@compiled
def standardise(
    x: Floats, mask: Mask | None, floor: float, units: tuple[Floats, Floats], out: Floats
) -> None:
    """Fill (B, D) with the logarithm of x, in units (shift and scale); with zero if masked."""
    least = out.dtype.type(floor)
    shift, scale = units
    for b in range(out.shape[0]):
        for d in range(out.shape[1]):
            u = (log(x[b, d] + least) - shift[d]) / scale[d]
            if mask is not None:
                u = u if mask[b, d] else out.dtype.type(0)
            out[b, d] = u


@compiled
def hyperbolic(values: Floats) -> None:
    """Replace (B, K) values by their tanh."""
    for b in range(values.shape[0]):
        for k in range(values.shape[1]):
            values[b, k] = tanh(values[b, k])


@compiled
def rectify(values: Floats, slope: float) -> None:
    """Multiply (B, K) values by a slope where they are negative."""
    small = values.dtype.type(slope)
    for b in range(values.shape[0]):
        for k in range(values.shape[1]):
            value = values[b, k]
            values[b, k] = small * value if value < 0 else value


@compiled
def below_tanh(output: Floats, gradient: Floats, bias: Floats) -> None:
    """Replace the gradient (B, K) by that before a tanh with this output.

    Fill the bias (K,) with the sum over rows.
    """
    one = gradient.dtype.type(1)
    bias[:] = 0
    for b in range(gradient.shape[0]):
        for k in range(gradient.shape[1]):
            gradient[b, k] *= one - output[b, k] * output[b, k]
            bias[k] += gradient[b, k]


@compiled
def below_rectifier(output: Floats, gradient: Floats, bias: Floats, slope: float) -> None:
    """Do the same for a rectifier with a slope on the negative side."""
    small = gradient.dtype.type(slope)
    bias[:] = 0
    for b in range(gradient.shape[0]):
        for k in range(gradient.shape[1]):
            value = gradient[b, k]
            value = value if output[b, k] > 0 else small * value
            gradient[b, k] = value
            bias[k] += value


@compiled
def sum_rows(gradient: Floats, bias: Floats) -> None:
    """Fill the bias (K,) with the sum of the gradient (B, K) over rows."""
    bias[:] = 0
    for b in range(gradient.shape[0]):
        for k in range(gradient.shape[1]):
            bias[k] += gradient[b, k]
