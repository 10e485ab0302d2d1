"""Loops for the draws of rows, compiled when first called.

`numerics.noise` says the same in plain torch. A row's draws begin at its seed (`Noise.seeds`).
"""

import math

import numpy as np

from distvae.engines.elementary import cosine, log
from distvae.models.compiling import compiled, inlined
from distvae.models.kernels import Integers
from distvae.numerics.array_types import Floats

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inlined
def mix(z: np.uint64) -> np.uint64:
    """Apply SplitMix64's finaliser, as `numerics.noise.mix` does."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inlined
def unit(word: np.uint64) -> np.float32:
    """Return a uniform number in (0, 1) from the high bits of a random word."""
    return _middle(word >> np.uint64(41))


@inlined
def _middle(word: np.uint64) -> np.float32:
    """Map 23 bits to the middle of their cell in (0, 1)."""
    return (np.float32(np.int32(word)) + np.float32(0.5)) * np.float32(2.0**-23)


@compiled
def draw_uniform(seeds: Integers, out: Floats) -> None:
    """Fill (B, H) with the uniform draws of rows."""
    for b in range(out.shape[0]):
        start = mix(np.uint64(seeds[b]))
        for h in range(out.shape[1]):
            word = mix(start + np.uint64(h + 1) * GOLDEN)
            out[b, h] = unit(word)


@compiled
def draw_normal(seeds: Integers, out: Floats) -> None:
    """Fill (B, H) with the standard normal draws of rows."""
    turn = np.float32(2 * math.pi)
    for b in range(out.shape[0]):
        start = mix(np.uint64(seeds[b]))
        for h in range(out.shape[1]):
            word = mix(start + np.uint64(h + 1) * GOLDEN)
            radius = np.sqrt(np.float32(-2) * log(unit(word)))
            out[b, h] = radius * cosine(turn * _middle(word & np.uint64(0x7FFFFF)))
