"""The horizon: a truncation threshold for training. A state takes part in training if its log-joint
is at most this many nats below the log-joint of the row's best state.
"""

from torch import Tensor

from distvae.interface import Sums

MAX_LEFT_OUT = 1e-5
"""The posterior weight per row that training may leave out, on average."""
WIDER = 1.5
"""The factor by which the horizon grows when training leaves out more weight."""


def weight_left_out(total: Sums) -> float:
    """Return the mean posterior weight of the left-out states, measured on sampled rows."""
    return float(total["sampled_weight"] / total["sampled_rows"].clamp(min=1))


def next_horizon(horizon: Tensor, left_out: float, least: float) -> Tensor:
    """Return the horizon of the next epoch, given the weight left out in this epoch.

    The horizon widens if the weight exceeds `MAX_LEFT_OUT`. It narrows, down to `least`, if a
    narrower horizon would still keep enough weight: weights fall as exp(-gap).
    """
    if left_out > MAX_LEFT_OUT:
        return horizon * WIDER
    narrower = (horizon / WIDER).clamp(min=least)
    if left_out * float((horizon - narrower).exp()) < MAX_LEFT_OUT:
        return narrower
    return horizon
