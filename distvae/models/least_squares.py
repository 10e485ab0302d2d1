"""Fit a linear decoder in closed form, as in binary sparse coding.

Given the posteriors of all rows, the expected log-likelihood is highest where
sum E[u (x - V u)^T] = 0, with u = (z, 1) and V = (W, b). The change of V therefore solves
(sum E[u u^T]) change^T = sum E[u (x - V u)^T].
"""

import torch
from torch import Tensor, nn

from distvae.files.refusal import Refusal
from distvae.interface import Batch, Sums
from distvae.models.state_decoder import FromBits
from distvae.models.truncated import Truncated

RANK = 1e-7  # smallest relative eigenvalue of sum E[u u^T] that single precision can resolve


def refuse_masked(batch: Batch) -> None:
    """Refuse rows with missing values: each column would need its own sum E[u u^T]."""
    if batch.mask is not None:
        raise Refusal(
            "model.linear_fit: 'closed_form' with missing values that are left out; gradient, or"
            " model.missing = 'completed', expected"
        )


def moments(batch: Batch, q: Truncated) -> Tensor:
    """Return (H + 1, H + 1 + D): sum E[u u^T] and sum E[u (x - V u)^T], concatenated."""
    refuse_masked(batch)
    weight = q.weight.new_zeros(len(q.place), len(q.table)).scatter_add_(1, q.place, q.weight)
    states = nn.functional.pad(q.table.dense(weight.dtype), (0, 1), value=1.0)
    mass = weight.sum(0).unsqueeze(1)
    errors = weight.T @ batch.x - mass * q.output
    return states.T @ torch.cat([mass * states, errors], 1)


class Moments:
    """Accumulates the sums of `moments` over many steps, for rows that do not share states."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.rows = 0

    def add(self, batch: Batch, bits: Tensor, weight: Tensor, error: Tensor) -> None:
        """Add the sums of a batch, given the bits (B, K, H), the weights (B, K) and the errors
        (output minus x, (B, K, D)) of its states.
        """
        refuse_masked(batch)
        states = nn.functional.pad(bits, (0, 1), value=1.0).flatten(0, 1)
        columns = torch.cat([states, error.flatten(0, 1).neg()], 1)
        found = states.T @ columns.mul_(weight.view(-1, 1))
        self.total = found.double() if self.total is None else self.total.add_(found)
        self.rows += len(bits)

    def take(self) -> Sums:
        """Return the sums since the last call, or {} if there were no steps."""
        total, rows = self.total, self.rows
        self.total, self.rows = None, 0
        if total is None:
            return {}
        return {"moments": total, "fitted_rows": total.new_full((), rows)}


@torch.no_grad()
def fit(layer: nn.Linear | FromBits, variance: Tensor, total: Sums) -> Sums:
    """Set the weights and the bias of a layer to the least-squares solution.

    Return the sums of the epoch with the log-likelihood under the new weights. Do nothing if the
    moments do not cover all rows. Weights that the moments do not determine, for example for bits
    that were never active, keep their values.
    """
    size = len(total["moments"])
    second, errors = total["moments"].tensor_split([size], 1)
    if total["counts"].sum() != total["fitted_rows"]:
        return total
    change = torch.linalg.pinv(second, rtol=RANK, hermitian=True) @ errors
    layer.weight.add_(change[:-1] if isinstance(layer, FromBits) else change[:-1].T)
    layer.bias.add_(change[-1])
    gain = 0.5 * (change * errors).sum() / variance
    return total | {"density": total["density"] + gain}
