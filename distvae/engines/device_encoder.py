"""Hand-written gradients of encoder models on a GPU, with a third of autograd's operations.

The gradients equal autograd's up to rounding. Sums over rows, which no gradient needs, are computed
by the model's own methods, for many steps at once.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distvae import config
from distvae.engines.encoder_protocol import HasEncoder, has_encoder
from distvae.engines.latent_gradients import can_draw, draw_codes
from distvae.engines.layer_gradients import Errors, backward, can_differentiate, forward
from distvae.engines.waiting import Waiting, finite_steps
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.likelihoods import LEAST_LOG_POWER, Bernoulli, ItakuraSaito, Likelihood
from distvae.models.sdm import SDM
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise


def _pull_powers(batch: Batch, output: Tensor, rows: int, out: Tensor) -> None:
    """Fill in the gradient of the Itakura-Saito likelihood, with log powers as output."""
    share = one_over(rows, output.dtype, output.device)
    torch.addcdiv(share, batch.x, output.exp(), value=-1 / rows, out=out)
    torch.ops.aten.threshold_backward(out, output, LEAST_LOG_POWER, grad_input=out)


def _pull_bits(batch: Batch, output: Tensor, rows: int, out: Tensor) -> None:
    """Fill in the gradient of the Bernoulli likelihood, with logits as output."""
    torch.sub(output.sigmoid(), batch.x, out=out).div_(rows)


@cache
def one_over(rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the cached scalar 1 / rows. Recorded steps read its memory."""
    return torch.full((), 1 / rows, dtype=dtype, device=device)


Pull = Callable[[Batch, Tensor, int, Tensor], None]
"""Fills in the gradient of minus log p(x | z) divided by `rows`, by the decoder's output."""

PULLS: dict[type[Likelihood], Pull] = {ItakuraSaito: _pull_powers, Bernoulli: _pull_bits}


class Left(NamedTuple):
    """Values of a step that are summed over rows later."""

    x: Tensor
    row: Tensor
    mask: Tensor | None
    heads: Tensor
    """(B, K H) the encoder's output."""
    output: Tensor
    """(B, D) the decoder's output."""


class DeviceEncoderEngine:
    """Hand-written gradients. Sums over rows are computed for many steps at once."""

    def __init__(self, model: VAE, estep: HasEncoder) -> None:
        self.model, self.estep = model, estep
        self.encoder = [*_layers(estep.trunk), estep.head.linear]
        self.decoder = _layers(model.decoder)
        self.pull = PULLS[type(model.likelihood)]
        self.dictionary: nn.Parameter | None = None
        if isinstance(model, SDM) and model.config.dictionary != "identity":
            self.dictionary = model.dictionary
        self.waiting = Waiting(Left)

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Set the gradients of minus the objective summed over the batch and divided by `rows`.

        Return the sums of this and earlier steps, or {} while steps accumulate.
        """
        values = forward(self.encoder, self.estep.transform(batch))
        codes = draw_codes(self.model, values[-1], noise)
        latent = codes.z if self.dictionary is None else codes.z @ self.dictionary.T
        shown = forward(self.decoder, latent)
        errors = Errors([*self.encoder, *self.decoder], batch.x)
        self._pull_observed(batch, shown[-1], rows, errors.last)
        gradient = backward(self.decoder, shown, errors, to_input=True)
        gradient = self._below_dictionary(gradient, codes.z)
        codes.pull(gradient, self.model.beta / rows, errors.of[self.encoder[-1]])
        backward(self.encoder, values, errors)
        errors.sum_rows()
        self.waiting.add(Left(*batch[:3], values[-1], shown[-1]))
        has_other_objective_next = not self.model.is_warm
        return self.sums() if has_other_objective_next or self.waiting.is_full else {}

    def _pull_observed(self, batch: Batch, output: Tensor, rows: int, out: Tensor) -> None:
        """Fill in the gradient by the decoder's output, over observed values."""
        self.pull(batch, output, rows, out)
        if batch.mask is not None:
            out.mul_(batch.mask)

    def _below_dictionary(self, gradient: Tensor, code: Tensor) -> Tensor:
        """Return the gradient by the code, and set the gradient of a learned dictionary."""
        if self.dictionary is None:
            return gradient
        if self.dictionary.requires_grad:
            self.dictionary.grad = gradient.T @ code
        return gradient @ self.dictionary

    @torch.no_grad()
    def sums(self) -> Sums:
        """Return the sums over the batches of all accumulated steps, in double precision.

        The grouping of steps affects the last digit of the sums.
        """
        taken = self.waiting.take()
        if taken is None:
            return {}
        (x, row, mask, heads, output), rows = taken
        batch = Batch(x.double(), row, mask)
        q = self.model.posterior(lambda u: self.estep.head.split(heads.double()), batch.x)
        fit = self.model.likelihood(batch.x, output.double()[:, None], mask)[:, 0]
        objective = fit - self.model.beta * q.kl()
        sums = self.model.statistics(batch, q, Noise(0, 0, row))
        return sums | {"objective": objective.sum(), "finite": finite_steps(objective, rows)}


def _layers(net: nn.Module) -> list[nn.Module]:
    assert isinstance(net, nn.Sequential)
    return list(net)


def find_device_encoder_engine(model: VAE, estep: AnyEStep) -> DeviceEncoderEngine | None:
    """Return an engine for fully connected networks of known models, or None to use autograd."""
    if not has_encoder(estep) or type(estep.config) is not config.Amortised:
        return None
    penalised = isinstance(model, SDM) and model.config.coherence
    if not can_draw(model) or type(model.likelihood) not in PULLS or penalised:
        return None
    nets = (estep.trunk, model.decoder)
    if not all(type(net) is nn.Sequential and can_differentiate(list(net)) for net in nets):
        return None
    return DeviceEncoderEngine(model, estep)
