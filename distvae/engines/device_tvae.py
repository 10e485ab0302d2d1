"""Hand-written gradients of a TVAE on a GPU, with fixed shapes and without synchronisation.

All kept states of each row are decoded; left-out states have weight zero. The objective and its
gradient equal `TVAE.objective` up to rounding.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from distvae.engines.layer_gradients import Errors, backward, can_differentiate
from distvae.engines.pair_densities import has_pair_density
from distvae.engines.state_scores import Decoded, Scores
from distvae.engines.waiting import Waiting, finite_steps
from distvae.interface import AnyEStep, Batch, Searches, Sums
from distvae.models.least_squares import Moments
from distvae.models.truncated import KeepsStates, with_numbers
from distvae.models.tvae import TVAE
from distvae.numerics.noise import Noise


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
        self.moments = Moments()

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Set the gradients of minus the objective summed over the batch and divided by `rows`.

        Return the sums of this and earlier steps, or {} while steps accumulate.
        """
        scorer = self.scores.present()
        kept = self.estep.kept_states(batch)
        if kept.part is not None and kept.empty is None:
            kept = with_numbers(kept.words, kept.part, scorer.prior.none)
        decoded = scorer.decode(batch, kept.words, kept.empty)
        log_joint = decoded.density + decoded.prior
        bound = log_joint.logsumexp(1, keepdim=True)
        weight = (log_joint - bound).exp_()
        # As on the CPU: Adam would take large steps even along tiny gradients.
        heavy = torch.threshold(weight, torch.finfo(weight.dtype).eps, 0)
        if batch.mask is not None and self.model.completes:
            batch, decoded = self._complete(batch, decoded, weight)
        bits = decoded.values[0].unflatten(0, weight.shape)
        if self.model.fits_in_closed_form:
            self.moments.add(batch, bits, heavy, decoded.kept)
        else:
            self._send_back(batch, decoded, heavy, rows)
        code = torch.bmm(weight.unsqueeze(1), bits).squeeze(1)
        sampled = torch.zeros_like(weight) if kept.sampled is None else kept.sampled
        self.waiting.add(Left(code, bound, weight, sampled, decoded.density, batch.mask))
        return self.sums() if self.waiting.is_full else {}

    def _complete(self, batch: Batch, decoded: Decoded, weight: Tensor) -> tuple[Batch, Decoded]:
        """Impute missing values with their expectations, and compare the states with the result."""
        output = decoded.values[-1].view(*weight.shape, self.model.dims)
        mean = self.model.likelihood.mean(output)
        completed = batch.completed(torch.bmm(weight.unsqueeze(1), mean).squeeze(1))
        compared = self.scores.present().density.compare(completed, output)
        return completed, decoded._replace(density=compared.density, kept=compared.kept)

    def _send_back(self, batch: Batch, decoded: Decoded, weight: Tensor, rows: int) -> None:
        """Backpropagate to all layers that learn."""
        errors = Errors(self.layers, decoded.values[0])
        out = errors.last.unflatten(0, weight.shape)
        self.scores.present().density.gradient(batch, decoded.kept, weight, rows, out)
        backward(self.layers, decoded.values, errors)
        errors.sum_rows()

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
        sums |= self.moments.take()
        expected = (left.weight * left.density).sum(1)
        return sums | self.scores.present().density.statistics(expected, self._values(left))

    def _values(self, left: Left) -> Tensor:
        """Return the number of observed values."""
        if left.mask is not None:
            return left.mask.sum(dtype=torch.float64)
        return left.bound.new_full((), len(left.bound) * self.model.dims, dtype=torch.float64)

    def _ladder(self, active: Tensor) -> Tensor:
        """Return the cached numbers 0 to H."""
        if self.ladder is None or self.ladder.device != active.device:
            self.ladder = torch.arange(
                self.model.code_size + 1, dtype=active.dtype, device=active.device
            )
        return self.ladder


def find_device_tvae_engine(model: TVAE, estep: AnyEStep) -> DeviceTVAEEngine | None:
    """Return an engine if it supports the model and the E-step, or None to use autograd."""
    if not isinstance(estep, Searches) or not isinstance(estep, KeepsStates):
        return None
    if not can_differentiate(list(model.decoder)) or not has_pair_density(model.likelihood):
        return None
    return DeviceTVAEEngine(model, estep)
