"""Loops for the inputs and the layers of models with an encoder, compiled when first called.

`estep.amortised` and `nets` say the same in plain torch. Shapes: B rows, D values of an
observation, K values of a layer.
"""

from distvae.engines.elementary import Mask, log, tanh
from distvae.models.compiling import compiled
from distvae.numerics.array_types import Floats


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
