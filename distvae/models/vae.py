"""Variational autoencoder (Kingma and Welling, ICLR 2014), with the weight beta of Higgins et al.
(ICLR 2017).

    z ~ N(0, I),    x | z ~ likelihood(decoder(z)),    q(z | x) = N(mu(x), diag sigma^2(x))

The "VAE" of the speech papers is this model with the Itakura-Saito likelihood. beta weighs the KL
term only in the objective. The reported bound gives the KL term weight 1, so it is a valid lower
bound.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from distvae.config import Decoder
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.likelihoods import LIKELIHOODS, mean_variance
from distvae.models.nets import decoder
from distvae.models.posteriors import Encoded, Encoder, GaussianHead
from distvae.numerics.arrays import Facts
from distvae.numerics.noise import Noise
from distvae.numerics.rows import HeldRows


class VAE(nn.Module):
    """p(x, z) with a standard normal prior and a multilayer or convolutional decoder."""

    def __init__(self, config: Decoder, dims: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.config, self.dims, self.shape = config, dims, shape
        self.likelihood = LIKELIHOODS[config.likelihood]()
        width = self.likelihood.outputs * dims
        self.decoder = decoder(config, config.inputs, width, shape)
        self.beta = config.beta

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Initialise sigma^2 to the configured variance or the variance of the data; to 1 if the
        data do not vary.
        """
        self.likelihood.start(self.config.variance, lambda: mean_variance(blocks) or 1.0)

    def prepare_from(self, facts: Facts) -> bool:
        """Initialise sigma^2 as `prepare` does, from the recorded variances of the data."""
        recorded = facts.values.variance
        self.likelihood.start(self.config.variance, lambda: float(np.nanmean(recorded)) or 1.0)
        return True

    @property
    def code_size(self) -> int:
        """The number of values of a code."""
        return self.config.code_size

    def head(self, width: int) -> nn.Module:
        """Return the layer from an encoder's features to this model's posterior."""
        return GaussianHead(width, self.code_size)

    def posterior(self, encode: Encoder, u: Tensor) -> Encoded:
        """Return the posterior of transformed inputs, including its prior."""
        return encode(u)

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """Return codes (B, 1, H) drawn from the prior."""
        return noise.normal("slab", 1, self.code_size)

    def output(self, z: Tensor) -> Tensor:
        """Return the parameter of the likelihood."""
        output: Tensor = self.decoder(z)
        return output

    def decode(self, z: Tensor) -> Tensor:
        """Return E[x | z]."""
        return self.likelihood.mean(self.output(z))

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x | z), (B, S)."""
        density: Tensor = self.likelihood(batch.x, self.output(z), batch.mask)
        return density

    def bound(self, batch: Batch, q: Encoded, noise: Noise) -> Tensor:
        """Return log p(x | z) at one draw, minus the KL divergence."""
        return self.log_likelihood(batch, q.points(1, noise)[0])[:, 0] - q.kl()

    def objective(self, batch: Batch, q: Encoded, noise: Noise) -> Tensor:
        """Return the bound with the KL term weighted by beta, minus the penalty.

        The log-likelihood is averaged over `model.draws` draws.
        """
        fit = self.log_likelihood(batch, q.sample(self.config.draws, noise)).mean(-1)
        return fit - self.beta * q.kl() - self.penalty(q)

    def penalty(self, q: Encoded) -> Tensor:
        """Return a penalty in nats, (B,) or a scalar, that is subtracted from the objective."""
        return torch.zeros(())

    def at(self, step: float) -> None:
        """Set beta, which rises during its warm-up."""
        warm = self.config.beta_warmup
        beta = self.config.beta * min(1.0, step / warm if warm else 1.0)
        if beta != self.beta:  # an assignment to a module takes 20 us
            self.beta = beta

    @property
    def is_warm(self) -> bool:
        """True once all warm-ups have ended, so that the objective no longer changes."""
        return self.beta == self.config.beta

    def statistics(self, batch: Batch, q: Encoded, noise: Noise) -> Sums:
        """Return the sums for the likelihood's update."""
        if not self.likelihood.learns:
            return {}
        z, weight = q.points(1, noise)
        return self.likelihood.statistics(
            batch.x, self.log_likelihood(batch, z), weight, batch.mask
        )

    def maximise(self, total: Sums) -> None:
        """Update the likelihood in closed form."""
        self.likelihood.maximise(total)
