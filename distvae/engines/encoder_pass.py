"""A model with an encoder as dense layers, and the passes through them: products of matrices into
buffers that are kept, and compiled loops between them.

A pass has the buffers for a number of rows.
"""

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor

from distvae.engines import density_kernels, encoder_kernels
from distvae.engines.dense_layers import Buffer, FlatGradients, Layers, Weights, find_weights
from distvae.engines.elementary import Mask
from distvae.engines.encoder_latents import Latents, make_latents
from distvae.engines.encoder_protocol import HasEncoder
from distvae.interface import Batch, Sums
from distvae.models.likelihoods import Bernoulli, Gaussian, ItakuraSaito, Likelihood
from distvae.models.sdm import SDM, coherence_gradient
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise

DENSITIES: dict[type[Likelihood], Callable[..., float]] = {
    ItakuraSaito: density_kernels.itakura_saito,
    Bernoulli: density_kernels.bernoulli,
    Gaussian: density_kernels.gaussian,
}


class Net:
    """A model and its encoder, as dense layers."""

    def __init__(self, model: VAE, estep: HasEncoder, encoder: list[Weights]) -> None:
        self.model, self.estep = model, estep
        linear = estep.head.linear
        self.encoder = [*encoder, Weights(linear.weight, linear.bias)]
        self.decoder = find_weights(model.decoder) or []
        if isinstance(model, SDM) and model.config.dictionary != "identity":
            self.decoder.insert(0, Weights(model.dictionary))
        self.gradients = FlatGradients(chain(model.parameters(), estep.parameters()))
        self.dtype = linear.weight.dtype

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be equal between trainings that compute products together.

        These are the layers. Draws, activations, densities and divergences are each training's own.
        """
        layers = []
        for each in [*self.encoder, *self.decoder]:
            layers.append((*each.weight.shape, each.bias is None, each.weight.requires_grad))
        return (self.dtype, len(self.encoder), *layers)


class Pass:
    """Forward and backward on a number of rows."""

    def __init__(self, net: Net, rows: int) -> None:
        self.net, self.rows, self.model = net, rows, net.model
        latents = make_latents(net.model, rows, net.dtype)
        assert latents is not None
        self.latents: Latents = latents
        self.encoder = Layers(net.encoder, rows, net.gradients)
        self.decoder = Layers(net.decoder, rows, net.gradients)
        self.inputs = Buffer(rows, net.model.dims, net.dtype)
        self.density = DENSITIES[type(net.model.likelihood)]
        self.sums: Sums = {}
        self.divergence = self.fit = 0.0

    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Fill the gradients, and return the sums over the batch."""
        self.encoder.forward(self.transform(batch))
        self.draw(noise)
        self.decoder.forward(self.latents.z.tensor)
        self.score(batch, noise, rows)
        self.decoder.backward_to_input(self.decoder.output)
        self.encoder.backward(self.pull(rows))
        return self.conclude(rows)

    def transform(self, batch: Batch) -> Tensor:
        """Return what the encoder sees, (B, D)."""
        estep = self.net.estep
        if not estep.config.takes_logarithm:
            return estep.transform(batch)
        shift, scale = estep.shift.numpy(), estep.scale.numpy()
        encoder_kernels.standardise(
            batch.x.numpy(), _mask(batch), estep.config.floor, (shift, scale), self.inputs.values
        )
        return self.inputs.tensor

    def draw(self, noise: Noise) -> None:
        """Draw codes, given the output of the encoder."""
        self.divergence = self.latents.draw(self.encoder.output, noise)
        self.sums = {"kl": _sum(self.divergence), **self.latents.statistics()}

    def score(self, batch: Batch, noise: Noise, rows: int) -> None:
        """Replace the output of the decoder by the gradient of the mean fit."""
        self.fit = self._fit(batch, self.decoder.output, -1 / rows)
        if self.model.likelihood.learns:
            self.sums |= self._learned(batch, noise, self.fit, self.encoder.output)

    def pull(self, rows: int) -> Buffer:
        """Return the gradient by the output of the encoder, given that by the codes."""
        weight = self.model.beta / rows
        return self.latents.backward(self.encoder.output, self.decoder.below, weight)

    def conclude(self, rows: int) -> Sums:
        """Add the gradient of the penalty, and return the sums over the batch."""
        penalty = self._penalise(self.rows / rows)
        objective = self.fit - self.model.beta * self.divergence - self.rows * penalty
        return {"objective": _sum(objective), **self.sums}

    def _fit(self, batch: Batch, output: Buffer, weight: float) -> float:
        """Return the sum of log p(x | z); replace the output by the weighted sum's gradient."""
        operands = (batch.x.numpy(), output.values, _mask(batch), weight)
        if isinstance(self.model.likelihood, Gaussian):
            return self.density(*operands, float(self.model.likelihood.variance))
        return self.density(*operands)

    def _learned(self, batch: Batch, noise: Noise, fit: float, heads: Buffer) -> Sums:
        """Return the sums for the likelihood's closed form, at the draws of the bound."""
        if self.latents.relaxed:
            split = self.net.estep.head.split
            q = self.model.posterior(lambda u: split(heads.tensor), batch.x)
            return self.model.statistics(batch, q, noise)
        values = batch.x.new_full((), batch.x.numel()) if batch.mask is None else batch.mask.sum()
        return {"density": _sum(fit), "values": values}

    def _penalise(self, share: float) -> float:
        """Add the gradient of a share of the penalty, and return the penalty."""
        model = self.model
        if not isinstance(model, SDM) or not model.config.coherence:
            return 0.0
        value, gradient = coherence_gradient(model.dictionary)
        weight = model.config.coherence
        self.net.gradients.of(model.dictionary).add_(gradient, alpha=weight * share)
        return weight * value


def _mask(batch: Batch) -> Mask | None:
    return None if batch.mask is None else batch.mask.numpy()


def _sum(value: float) -> Tensor:
    """Return a sum as a tensor, in double precision."""
    return torch.scalar_tensor(value, dtype=torch.float64)
