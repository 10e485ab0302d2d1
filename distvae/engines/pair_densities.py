"""log p(x | z) of rows and states of their own, and its gradient by the decoder's output.

Each row of x (B, D) meets the outputs (B, K, D) for its own K states. What the parameters of the
likelihood decide is computed once, not in every step.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distvae.interface import Batch, Sums
from distvae.models.likelihoods import Bernoulli, Gaussian, Likelihood


class Compared(NamedTuple):
    """Rows, compared with the outputs for their states."""

    density: Tensor
    """(B, K) log p(x | z)."""
    kept: Tensor
    """(B, K, D) what the gradient needs."""


class PairDensity(Protocol):
    """A likelihood with its present parameters."""

    def refresh(self) -> None:
        """Take the parameters of this moment, in place."""

    def compare(self, batch: Batch, output: Tensor) -> Compared:
        """Return the densities of the rows under the outputs (B, K, D) for their states."""

    def gradient(self, batch: Batch, kept: Tensor, weight: Tensor, rows: int, out: Tensor) -> None:
        """Fill (B, K, D) with the gradient of minus the weighted densities over so many rows."""

    def statistics(self, expected: Tensor, values: Tensor) -> Sums:
        """Return the sums that the closed form needs, given the expected densities of rows (B,)
        and the number of values that were observed.
        """


class GaussianPairs:
    """Densities from differences, which are exact even far from zero."""

    def __init__(self, likelihood: Gaussian) -> None:
        self.likelihood = likelihood
        self.inverse, self.scale, self.shift = likelihood.variance.new_empty(3).unbind()
        self.factors: dict[int, Tensor] = {}
        self.shifts: dict[int, Tensor] = {}
        self.refresh()

    def refresh(self) -> None:
        """Compute everything from the present variance, in place."""
        variance = self.likelihood.variance
        self.inverse.copy_(variance.reciprocal())
        self.scale.copy_(-0.5 * self.inverse)
        self.shift.copy_(-0.5 * (2 * math.pi * variance).log())
        for rows, factor in self.factors.items():
            factor.copy_(self.inverse / rows)
        for dims, shift in self.shifts.items():
            shift.copy_(dims * self.shift)

    def compare(self, batch: Batch, output: Tensor) -> Compared:
        """Return densities, and the errors."""
        error = output - batch.x[:, None]
        if batch.mask is not None:
            error.mul_(batch.mask[:, None])
        distance = error.square().sum(-1)
        return Compared(torch.addcmul(self._shift(batch), distance, self.scale), error)

    def _shift(self, batch: Batch) -> Tensor:
        """Return the logarithm of the normaliser: (), or (B, 1) where values are missing."""
        if batch.mask is not None:
            return self.shift * batch.mask.sum(1, keepdim=True)
        dims = batch.x.shape[1]
        if dims not in self.shifts:
            self.shifts[dims] = dims * self.shift
        return self.shifts[dims]

    def gradient(self, batch: Batch, kept: Tensor, weight: Tensor, rows: int, out: Tensor) -> None:
        """Fill in the weighted errors over the variance."""
        if rows not in self.factors:
            self.factors[rows] = self.inverse / rows
        torch.mul(kept, (weight * self.factors[rows]).unsqueeze(-1), out=out)

    def statistics(self, expected: Tensor, values: Tensor) -> Sums:
        """Return the expected log-likelihood, and the number of values that it is of."""
        return {"density": expected.sum(dtype=torch.float64), "values": values}


class BernoulliPairs:
    """Densities of probabilities of ones; the outputs are logits."""

    def __init__(self, likelihood: Bernoulli) -> None:
        self.likelihood = likelihood

    def refresh(self) -> None:
        """Do nothing: there are no parameters."""

    def compare(self, batch: Batch, output: Tensor) -> Compared:
        """Return densities, and the logits."""
        density = self.likelihood.log_density(batch.x[:, None], output)
        if batch.mask is not None:
            density.mul_(batch.mask[:, None])
        return Compared(density.sum(-1), output)

    def gradient(self, batch: Batch, kept: Tensor, weight: Tensor, rows: int, out: Tensor) -> None:
        """Fill in the weighted differences between probabilities and values."""
        error = kept.sigmoid().sub_(batch.x[:, None])
        if batch.mask is not None:
            error.mul_(batch.mask[:, None])
        torch.mul(error, (weight / rows).unsqueeze(-1), out=out)

    def statistics(self, expected: Tensor, values: Tensor) -> Sums:
        """Return nothing: it has no closed form."""
        return {}


def has_pair_density(likelihood: Likelihood) -> bool:
    """Return whether a likelihood is of a kind that is known here."""
    return isinstance(likelihood, Gaussian | Bernoulli)


def pair_density(likelihood: Likelihood) -> PairDensity:
    """Return a likelihood with its present parameters."""
    if isinstance(likelihood, Gaussian):
        return GaussianPairs(likelihood)
    assert isinstance(likelihood, Bernoulli)
    return BernoulliPairs(likelihood)
