"""log p(x | z) of each row under its own states, and the gradient by the decoder's output.

Each row of x (B, D) is compared with the outputs (B, K, D) for its own K states. Terms that depend
only on the likelihood's parameters are computed once, not in every step.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distvae.interface import Batch, Sums
from distvae.models.likelihoods import Bernoulli, Gaussian, Likelihood


class Compared(NamedTuple):
    """The comparison of rows with the outputs for their states."""

    density: Tensor
    """(B, K) log p(x | z)."""
    kept: Tensor
    """(B, K, D) saved for the gradient."""


class PairDensity(Protocol):
    """A likelihood with its current parameters."""

    def refresh(self) -> None:
        """Copy the current parameters, in place."""

    def compare(self, batch: Batch, output: Tensor) -> Compared:
        """Compare rows with the outputs (B, K, D) for their states."""

    def gradient(self, batch: Batch, kept: Tensor, weight: Tensor, rows: int, out: Tensor) -> None:
        """Fill `out` (B, K, D) with the gradient of minus the weighted log-densities divided by
        `rows`.
        """

    def statistics(self, expected: Tensor, values: Tensor) -> Sums:
        """Return the sums for the likelihood's closed-form update, given the expected log-density
        of each row (B,) and the number of observed values.
        """


class GaussianPairs:
    """Gaussian log-densities from differences, which are exact even far from zero."""

    def __init__(self, likelihood: Gaussian) -> None:
        self.likelihood = likelihood
        self.inverse, self.scale, self.shift = likelihood.variance.new_empty(3).unbind()
        self.factors: dict[int, Tensor] = {}
        self.shifts: dict[int, Tensor] = {}
        self.refresh()

    def refresh(self) -> None:
        """Recompute all terms from the current variance, in place."""
        variance = self.likelihood.variance
        self.inverse.copy_(variance.reciprocal())
        self.scale.copy_(-0.5 * self.inverse)
        self.shift.copy_(-0.5 * (2 * math.pi * variance).log())
        for rows, factor in self.factors.items():
            factor.copy_(self.inverse / rows)
        for dims, shift in self.shifts.items():
            shift.copy_(dims * self.shift)

    def compare(self, batch: Batch, output: Tensor) -> Compared:
        """Return the log-densities, and the errors."""
        error = output - batch.x[:, None]
        if batch.mask is not None:
            error.mul_(batch.mask[:, None])
        distance = error.square().sum(-1)
        return Compared(torch.addcmul(self._shift(batch), distance, self.scale), error)

    def _shift(self, batch: Batch) -> Tensor:
        """Return the log of the normaliser: (), or (B, 1) if values are missing."""
        if batch.mask is not None:
            return self.shift * batch.mask.sum(1, keepdim=True)
        dims = batch.x.shape[1]
        if dims not in self.shifts:
            self.shifts[dims] = dims * self.shift
        return self.shifts[dims]

    def gradient(self, batch: Batch, kept: Tensor, weight: Tensor, rows: int, out: Tensor) -> None:
        """Fill in the weighted errors, divided by the variance and `rows`."""
        if rows not in self.factors:
            self.factors[rows] = self.inverse / rows
        torch.mul(kept, (weight * self.factors[rows]).unsqueeze(-1), out=out)

    def statistics(self, expected: Tensor, values: Tensor) -> Sums:
        """Return the expected log-likelihood, and the number of observed values."""
        return {"density": expected.sum(dtype=torch.float64), "values": values}


class BernoulliPairs:
    """Bernoulli log-densities; the outputs are logits."""

    def __init__(self, likelihood: Bernoulli) -> None:
        self.likelihood = likelihood

    def refresh(self) -> None:
        """Do nothing, because there are no parameters."""

    def compare(self, batch: Batch, output: Tensor) -> Compared:
        """Return the log-densities, and the logits."""
        density = self.likelihood.log_density(batch.x[:, None], output)
        if batch.mask is not None:
            density.mul_(batch.mask[:, None])
        return Compared(density.sum(-1), output)

    def gradient(self, batch: Batch, kept: Tensor, weight: Tensor, rows: int, out: Tensor) -> None:
        """Fill in the weighted differences of probabilities and values, divided by `rows`."""
        error = kept.sigmoid().sub_(batch.x[:, None])
        if batch.mask is not None:
            error.mul_(batch.mask[:, None])
        torch.mul(error, (weight / rows).unsqueeze(-1), out=out)

    def statistics(self, expected: Tensor, values: Tensor) -> Sums:
        """Return {}, because there is no closed-form update."""
        return {}


def has_pair_density(likelihood: Likelihood) -> bool:
    """Return whether `pair_density` supports a likelihood."""
    return isinstance(likelihood, Gaussian | Bernoulli)


def pair_density(likelihood: Likelihood) -> PairDensity:
    """Return the pair density of a likelihood, with its current parameters."""
    if isinstance(likelihood, Gaussian):
        return GaussianPairs(likelihood)
    assert isinstance(likelihood, Bernoulli)
    return BernoulliPairs(likelihood)
