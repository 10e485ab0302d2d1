"""Scores of states and hand-written gradients of a TVAE on a GPU, with fixed shapes and without
synchronisation.

All kept states of each row are decoded, because the host would have to wait for the number of
distinct states, and that wait costs more than decoding duplicates. Left-out states have weight
zero. The objective and its gradient equal `TVAE.objective` up to rounding.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distvae.engines.device import (
    Errors,
    Waiting,
    backward,
    can_differentiate,
    finite_steps,
    forward,
)
from distvae.interface import AnyEStep, Batch, Searches, Sums
from distvae.models.likelihoods import Bernoulli, Gaussian, Likelihood
from distvae.models.population import log_odds, unpack, words_of
from distvae.models.truncated import KeepsStates, with_numbers
from distvae.models.tvae import TVAE, refuse_masked
from distvae.numerics.noise import Noise

DECODED = 2**28
"""Numbers in memory for the states that are decoded at a time: 1 GiB in single precision."""


class Decoded(NamedTuple):
    """The decoded states of a batch."""

    values: list[Tensor]
    """The bits (B K, H), and the output of each layer."""
    prior: Tensor
    """(B, K) log p(z)."""
    density: Tensor
    """(B, K) log p(x | z)."""
    kept: Tensor
    """(B, K, D) saved for the gradient of the density."""


class Terms(NamedTuple):
    """Terms that depend only on pi and the likelihood's variance."""

    odds: Tensor
    """(H,) the log-odds of active bits."""
    none: Tensor
    """() log p(z) of the state without active bits."""
    inverse: Tensor
    """() 1 / sigma^2."""
    scale: Tensor
    """() -1 / (2 sigma^2)."""
    shift: Tensor
    """() the log of a Gaussian's normaliser, for one value."""
    whole_shift: Tensor
    """() the log of a Gaussian's normaliser, for all values of a row."""


class Scores:
    """Scores states under a TVAE. Terms are computed when pi or the variance has changed, in place,
    because recorded steps read their memory.
    """

    def __init__(self, model: TVAE) -> None:
        self.model, self.likelihood = model, model.likelihood
        self.layers = list(model.decoder)
        self.terms: Terms | None = None
        self.factors: dict[int, Tensor] = {}
        """1 / (sigma^2 rows), by the number of rows."""
        self.versions: tuple[int, ...] = ()

    def present(self) -> Terms:
        """Return the terms under the current parameters."""
        versions = []
        for buffer in self.model.buffers():
            versions += [id(buffer), buffer._version]
        if self.terms is None or self.terms.odds.device != self.model.pi.device:
            self.terms, self.factors = self._compute_terms(), {}
        elif tuple(versions) != self.versions:
            for kept, term in zip(self.terms, self._compute_terms(), strict=True):
                kept.copy_(term)
            for rows, factor in self.factors.items():
                factor.copy_(self.terms.inverse / rows)
        self.versions = tuple(versions)
        return self.terms

    def _compute_terms(self) -> Terms:
        odds = log_odds(self.model.pi)
        none = functional.softplus(odds).sum().neg()
        if not isinstance(self.likelihood, Gaussian):
            return Terms(odds, none, *(none.new_zeros(()) for _ in range(4)))
        variance = self.likelihood.variance
        inverse, shift = variance.reciprocal(), -0.5 * (2 * math.pi * variance).log()
        return Terms(odds, none, inverse, -0.5 * inverse, shift, self.model.dims * shift)

    def decode(self, batch: Batch, words: Tensor, empty: Tensor | None = None) -> Decoded:
        """Decode the states of words (B, K, W) and compare them with the rows.

        `empty` (B, K) replaces log p(0) for each state, for example by -inf for left-out states.
        """
        terms = self.present()
        bits = unpack(words.flatten(0, 1), self.model.code_size, batch.x.dtype)
        values = forward(self.layers, bits)
        none = terms.none if empty is None else empty.flatten()
        prior = torch.addmv(none, bits, terms.odds).view(words.shape[:2])
        output = values[-1].view(*words.shape[:2], self.model.dims)
        return Decoded(values, prior, *self.compare(batch, output))

    def compare(self, batch: Batch, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x | z), (B, K), given the outputs (B, K, D) for the states of each row, and
        the values that the gradient needs. Differences are exact even far from zero.
        """
        mask = None if batch.mask is None else batch.mask[:, None]
        if not isinstance(self.likelihood, Gaussian):
            density = self.likelihood.log_density(batch.x[:, None], output)
            return (density if mask is None else density.mul_(mask)).sum(-1), output
        assert self.terms is not None
        terms, error = self.terms, output - batch.x[:, None]
        shift = terms.whole_shift
        if mask is not None:
            error.mul_(mask)
            shift = terms.shift * mask.sum(2)
        return torch.addcmul(shift, error.square().sum(-1), terms.scale), error

    def gradient(self, batch: Batch, kept: Tensor, weight: Tensor, rows: int, out: Tensor) -> None:
        """Fill `out` (B, K, D) with the gradient of minus the weighted log-densities divided by
        `rows`.
        """
        if isinstance(self.likelihood, Gaussian):
            if rows not in self.factors:
                self.factors[rows] = self.present().inverse / rows
            weight = weight * self.factors[rows]
        else:
            kept, weight = kept.sigmoid().sub_(batch.x[:, None]), weight / rows
            if batch.mask is not None:
                kept.mul_(batch.mask[:, None])
        torch.mul(kept, weight.unsqueeze(-1), out=out)

    def score(self, batch: Batch, words: Tensor) -> Tensor:
        """Return log p(x, z), (B, K), computed in chunks of rows."""
        if not len(words):  # a worker may have no rows in a block
            return batch.x.new_empty(words.shape[:2])
        found = []
        for part, states in self._parts(batch, words):
            decoded = self.decode(part, states)
            found.append(decoded.density.add_(decoded.prior))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _parts(self, batch: Batch, words: Tensor) -> Iterator[tuple[Batch, Tensor]]:
        """Yield chunks of rows whose activations fit in memory: each layer before and after its
        activation, errors and their squares, and the bits as integers.
        """
        model = self.model
        numbers = 2 * sum((*model.config.hidden, model.dims, 64 * words_of(model.code_size)))
        count = max(1, DECODED // (words.shape[1] * numbers))
        for first in range(0, len(words), count):
            rows = slice(first, first + count)
            yield batch.part(rows), words[rows]


class Left(NamedTuple):
    """Values of a step that are summed over rows later."""

    code: Tensor
    """(B, H) the expected bits E[z]."""
    bound: Tensor
    """(B, 1) the objective."""
    weight: Tensor
    """(B, K) the posterior weights of the states."""
    sampled: Tensor
    """(B, K) 1 for states with part `SAMPLED`, 0 for all other states."""
    density: Tensor
    """(B, K) log p(x | z)."""
    mask: Tensor | None


class DeviceTVAEEngine:
    """Hand-written gradients. Sums over rows are computed for many steps at once."""

    def __init__(self, model: TVAE, estep: KeepsStates) -> None:
        self.model, self.estep, self.scores = model, estep, Scores(model)
        self.layers = list(model.decoder)
        self.ladder: Tensor | None = None
        self.waiting = Waiting(Left)
        self.moments: Tensor | None = None
        self.fitted_rows = 0

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Set the gradients of minus the objective summed over the batch and divided by `rows`.

        Return the sums of this and earlier steps, or {} while steps accumulate.
        """
        kept = self.estep.kept_states(batch)
        if kept.part is not None and kept.empty is None:
            kept = with_numbers(kept.words, kept.part, self.scores.present().none)
        decoded = self.scores.decode(batch, kept.words, kept.empty)
        log_joint = decoded.density + decoded.prior
        bound = log_joint.logsumexp(1, keepdim=True)
        weight = (log_joint - bound).exp_()
        # As on the CPU: Adam would take large steps even along tiny gradients.
        heavy = torch.threshold(weight, torch.finfo(weight.dtype).eps, 0)
        if batch.mask is not None and self.model.completes:
            batch, decoded = self._complete(batch, decoded, weight)
        bits = decoded.values[0].unflatten(0, weight.shape)
        if self.model.fits_in_closed_form:
            self._add_moments(batch, bits, heavy, decoded.kept)
        else:
            errors = Errors(self.layers, decoded.values[0])
            out = errors.last.unflatten(0, weight.shape)
            self.scores.gradient(batch, decoded.kept, heavy, rows, out)
            backward(self.layers, decoded.values, errors)
            errors.sum_rows()
        code = torch.bmm(weight.unsqueeze(1), bits).squeeze(1)
        sampled = torch.zeros_like(weight) if kept.sampled is None else kept.sampled
        self.waiting.add(Left(code, bound, weight, sampled, decoded.density, batch.mask))
        return self.sums() if self.waiting.is_full else {}

    def _complete(self, batch: Batch, decoded: Decoded, weight: Tensor) -> tuple[Batch, Decoded]:
        """Impute missing values with their expectations, and compare the states with the result."""
        output = decoded.values[-1].view(*weight.shape, self.model.dims)
        mean = self.model.likelihood.mean(output)
        completed = batch.completed(torch.bmm(weight.unsqueeze(1), mean).squeeze(1))
        density, kept = self.scores.compare(completed, output)
        return completed, decoded._replace(density=density, kept=kept)

    def _add_moments(self, batch: Batch, bits: Tensor, weight: Tensor, error: Tensor) -> None:
        """Add sum E[u u^T] and sum E[u (x - V u)^T] (see `tvae.py`), given the bits (B, K, H), the
        weights (B, K) and the errors (output minus x, (B, K, D)) of the states.
        """
        refuse_masked(batch)
        states = functional.pad(bits, (0, 1), value=1.0).flatten(0, 1)
        columns = torch.cat([states, error.flatten(0, 1).neg()], 1)
        found = states.T @ columns.mul_(weight.view(-1, 1))
        self.moments = found.double() if self.moments is None else self.moments.add_(found)
        self.fitted_rows += len(bits)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the current pi and variance, in place."""
        self.scores.present()

    @torch.no_grad()
    def sums(self) -> Sums:
        """Return the sums over the batches of all accumulated steps."""
        taken = self.waiting.take()
        if taken is None:
            return {}
        left, rows = taken
        active = left.code.sum(1, keepdim=True).round_()
        sums = {
            "objective": left.bound.sum(dtype=torch.float64),
            "finite": finite_steps(left.bound[:, 0], rows),
            "active": left.code.sum(0, dtype=torch.float64),
            "counts": (active == self._ladder(active)).sum(0, dtype=torch.float64),
            "sampled_weight": (left.weight * left.sampled).sum(dtype=torch.float64),
        }
        if self.moments is not None:
            sums["moments"] = self.moments
            sums["fitted_rows"] = self.moments.new_full((), self.fitted_rows)
            self.moments, self.fitted_rows = None, 0
        if self.model.likelihood.learns:
            sums["density"] = (left.weight * left.density).sum(1).sum(dtype=torch.float64)
            if left.mask is not None:
                sums["values"] = left.mask.sum(dtype=torch.float64)
            else:
                values = len(left.bound) * self.model.dims
                sums["values"] = left.bound.new_full((), values, dtype=torch.float64)
        return sums

    def _ladder(self, active: Tensor) -> Tensor:
        """Return the cached numbers 0 to H."""
        if self.ladder is None or self.ladder.device != active.device:
            self.ladder = torch.arange(
                self.model.code_size + 1, dtype=active.dtype, device=active.device
            )
        return self.ladder


def can_score(likelihood: Likelihood) -> bool:
    """Return whether `Scores` supports a likelihood."""
    return isinstance(likelihood, Gaussian | Bernoulli)


def find_tvae_engine(model: TVAE, estep: AnyEStep) -> DeviceTVAEEngine | None:
    """Return an engine if it supports the model and the E-step, or None to use autograd."""
    if not isinstance(estep, Searches) or not isinstance(estep, KeepsStates):
        return None
    if not can_differentiate(list(model.decoder)) or not can_score(model.likelihood):
        return None
    return DeviceTVAEEngine(model, estep)
