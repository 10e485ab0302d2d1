"""The horizon of truncated posteriors: how far below the best state of a row, in nats of the
log-joint, a state may be and still take part in training.
"""

from torch import Tensor

from distvae.interface import Sums

MAX_LEFT_OUT = 1e-5
"""The weight of a row's states, on average, that training may leave out."""
WIDER = 1.5
"""The factor by which the horizon grows when more is left out."""


def weight_left_out(total: Sums) -> float:
    """Return the weight of the states that training leaves out, as measured on sampled rows."""
    return float(total["sampled_weight"] / total["sampled_rows"].clamp(min=1))


def next_horizon(horizon: Tensor, left_out: float, least: float) -> Tensor:
    """Return the horizon of the next epoch, given the weight that this one's left out.

    It widens if that was too much. It narrows, down to `least`, if little enough was left out that
    the narrower one would do: weights fall as exp(-gap).
    """
    if left_out > MAX_LEFT_OUT:
        return horizon * WIDER
    narrower = (horizon / WIDER).clamp(min=least)
    if left_out * float((horizon - narrower).exp()) < MAX_LEFT_OUT:
        return narrower
    return horizon
