"""Elementary functions for compiled loops, as polynomials in single precision.

Numba calls a function of the C library for each value, which keeps a loop from using vector
instructions. A polynomial does not. In double precision the library's functions serve.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

Real = np.floating
Elementary = Callable[[Real], Real]
Mask = NDArray[np.bool_]

LOG2_E = np.float32(1 / math.log(2))
LOG_2 = (np.float32(0.693359375), np.float32(-2.12194440e-4))
"""log 2 in two parts, of which the first has few bits."""
EXP = tuple(
    np.float32(c)
    for c in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.16657959e-2, 0.16666666546, 0.50000001201)
)
LOG = tuple(
    np.float32(c)
    for c in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
QUARTERS = np.float32(2 / math.pi)
QUARTER = (np.float32(1.5703125), np.float32(4.837512969970703e-4), np.float32(7.5497901e-8))
"""pi / 2 in three parts, of which the first two have few bits."""
SINE = tuple(np.float32(c) for c in (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1))
COSINE = tuple(np.float32(c) for c in (2.443315711809948e-5, -1.388731625493765e-3, 4.16666457e-2))
TANH_ABOVE = tuple(
    np.float32(c)
    for c in (
        -2.76076847742355e-16,
        2.00018790482477e-13,
        -8.60467152213735e-11,
        5.12229709037114e-8,
        1.48572235717979e-5,
        6.37261928875436e-4,
        4.89352455891786e-3,
    )
)
TANH_BELOW = tuple(
    np.float32(c)
    for c in (1.19825839466702e-6, 1.18534705686654e-4, 2.26843463243900e-3, 4.89352518554385e-3)
)
TANH_END = np.float32(7.90531110763549805)
"""The tanh of this is one."""
ROOT_HALF = np.int32(0x3F3504F3)
"""The bits of the square root of one half."""
ZERO, HALF, ONE, TWO = (np.float32(c) for c in (0, 0.5, 1, 2))


def exp(x: Real) -> Real:
    """Return e^x; of infinities, NaN."""
    y: Real = np.exp(x)
    return y


def log(x: Real) -> Real:
    """Return log x; of zero, negative and infinite values, NaN."""
    y: Real = np.log(x)
    return y


def cosine(x: Real) -> Real:
    """Return cos x for x between 0 and 2 pi."""
    y: Real = np.cos(x)
    return y


def tanh(x: Real) -> Real:
    """Return tanh x."""
    y: Real = np.tanh(x)
    return y


def _exp(x: Real) -> Real:
    """Return 2^n e^r, with n whole and r small. 2^n is two factors, as n may be 128."""
    n = np.rint(x * LOG2_E)
    r = x - n * LOG_2[0] - n * LOG_2[1]
    p = EXP[0] * r + EXP[1]
    p = p * r + EXP[2]
    p = p * r + EXP[3]
    p = p * r + EXP[4]
    p = p * r + EXP[5]
    p = p * r * r + r + ONE
    power = np.int32(min(max(n, np.float32(-252)), np.float32(256)))
    half = power >> np.int32(1)
    rest = np.int32(power - half)
    first = np.int32(np.int32(half + np.int32(127)) << np.int32(23)).view(np.float32)
    second = np.int32(np.int32(rest + np.int32(127)) << np.int32(23)).view(np.float32)
    y: Real = p * first * second
    return y


def _log(x: Real) -> Real:
    """Return e log 2 + log(1 + r), with e whole and 1 + r between the roots of 1/2 and 2."""
    bits = np.int32(np.float32(x).view(np.int32) - ROOT_HALF)
    e = np.float32(bits >> np.int32(23))
    r = np.int32((bits & np.int32(0x7FFFFF)) + ROOT_HALF).view(np.float32) - ONE
    p = LOG[0] * r + LOG[1]
    p = p * r + LOG[2]
    p = p * r + LOG[3]
    p = p * r + LOG[4]
    p = p * r + LOG[5]
    p = p * r + LOG[6]
    p = p * r + LOG[7]
    p = p * r + LOG[8]
    square = r * r
    y = p * r * square + e * LOG_2[1] - HALF * square
    y = r + y + e * LOG_2[0]
    y = y + (x - x) if x > ZERO else np.float32(np.nan)
    return y


def _cosine(x: Real) -> Real:
    """Return the sine or the cosine, or minus it, of what is left of x beyond whole quarters."""
    n = np.rint(x * QUARTERS)
    r = x - n * QUARTER[0] - n * QUARTER[1] - n * QUARTER[2]
    z = r * r
    sine = ((SINE[0] * z + SINE[1]) * z + SINE[2]) * z * r + r
    cosine = ((COSINE[0] * z + COSINE[1]) * z + COSINE[2]) * z * z - HALF * z + ONE
    quarter = np.int32(n)
    y: Real = sine if quarter & np.int32(1) else cosine
    return -y if np.int32(quarter + np.int32(1)) & np.int32(2) else y


def _tanh(x: Real) -> Real:
    """Return a quotient of two polynomials."""
    short = TANH_END if x > TANH_END else x
    short = -TANH_END if short < -TANH_END else short
    z = short * short
    above = TANH_ABOVE[0] * z + TANH_ABOVE[1]
    above = above * z + TANH_ABOVE[2]
    above = above * z + TANH_ABOVE[3]
    above = above * z + TANH_ABOVE[4]
    above = above * z + TANH_ABOVE[5]
    above = above * z + TANH_ABOVE[6]
    below = TANH_BELOW[0] * z + TANH_BELOW[1]
    below = below * z + TANH_BELOW[2]
    below = below * z + TANH_BELOW[3]
    y: Real = short * above / below
    return y


def _compile_in_loops(function: Elementary, single: Elementary) -> None:
    """Let compiled loops call the polynomial for single precision, else the library.

    Additions keep their order: what is left of a number depends on it.
    """

    def choose(x: Real) -> Elementary:
        return single if x == types.float32 else function

    options: Any = {"fastmath": {"contract"}, "error_model": "numpy"}
    overload(function, jit_options=options)(choose)


_compile_in_loops(exp, _exp)
_compile_in_loops(log, _log)
_compile_in_loops(cosine, _cosine)
_compile_in_loops(tanh, _tanh)
