"""Variational autoencoder (Kingma and Welling, ICLR 2014), with the weight beta of Higgins et al.
(ICLR 2017).

    z ~ N(0, I),    x | z ~ likelihood(decoder(z)),    q(z | x) = N(mu(x), diag sigma^2(x))

The speech papers' "VAE" is this with the Itakura-Saito likelihood. beta weighs the divergence in
the objective alone; the bound that is reported has weight one, so that it is one.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from distvae.config import Decoder, VAEModel
from distvae.interface import Batch
from distvae.models.likelihoods import LIKELIHOODS
from distvae.models.nets import decoder
from distvae.models.posteriors import Encoded, Encoder, GaussianHead
from distvae.models.registry import register
from distvae.numerics.noise import Noise


@register(VAEModel)
class VAE(nn.Module):
    """p(x, z) with a standard normal prior and a multilayer or convolutional decoder."""

    def __init__(self, config: Decoder, dims: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.config, self.dims, self.shape = config, dims, shape
        self.decoder = decoder(config, config.latent, dims, shape)
        self.likelihood = LIKELIHOODS[config.likelihood]()
        self.beta = config.beta

    def prepare(self, blocks: Iterable[Tensor]) -> None:
        """Nothing to take from the training data."""

    @property
    def code_size(self) -> int:
        """Values of a latent state."""
        return self.config.latent

    def head(self, width: int) -> nn.Module:
        """What turns an encoder's features into this model's posterior."""
        return GaussianHead(width, self.code_size)

    def posterior(self, encode: Encoder, u: Tensor) -> Encoded:
        """The posterior of transformed inputs, with its prior."""
        return encode(u)

    def prior(self, noise: Noise, estep: Any) -> Tensor:
        """(B, 1, H) states drawn from the prior, one for each row of the noise."""
        return noise.normal("slab", 1, self.code_size)

    def output(self, z: Tensor) -> Tensor:
        """The likelihood's parameter."""
        return self.decoder(z)  # type: ignore[no-any-return]

    def decode(self, z: Tensor) -> Tensor:
        """E[x | z]."""
        return self.likelihood.mean(self.output(z))

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """(B, S) log p(x | z)."""
        return self.likelihood(batch.x, self.output(z), batch.mask)  # type: ignore[no-any-return]

    def bound(self, batch: Batch, q: Encoded, noise: Noise) -> Tensor:
        """(B,) log p(x | z) at one draw, minus the divergence."""
        return self.log_likelihood(batch, q.points(1, noise)[0])[:, 0] - q.kl()

    def objective(self, batch: Batch, q: Encoded, noise: Noise) -> Tensor:
        """(B,) the bound with the divergence weighted by beta, minus the penalty."""
        return (
            self.log_likelihood(batch, q.sample(noise))[:, 0] - self.beta * q.kl() - self.penalty(q)
        )

    def penalty(self, q: Encoded) -> Tensor:
        """(B,) or a scalar, nats per data point, outside the bound."""
        return torch.zeros(())

    def project(self) -> None:
        """Nothing to return to."""

    def at(self, step: float) -> None:
        """Raise beta over its warm-up."""
        warm = self.config.beta_warmup
        self.beta = self.config.beta * min(1.0, step / warm if warm else 1.0)

    def statistics(self, batch: Batch, q: Encoded, noise: Noise) -> dict[str, Tensor]:
        """The divergence, and what the likelihood's closed form needs."""
        sums = {"kl": q.kl().sum()}
        if self.likelihood.learns:
            z, weight = q.points(1, noise)
            sums |= self.likelihood.statistics(
                batch.x, self.log_likelihood(batch, z), weight, batch.mask
            )
        return sums

    def telemetry(self, total: dict[str, Tensor]) -> dict[str, float]:
        """Nothing beyond what every model tells."""
        return {}

    def maximise(self, total: dict[str, Tensor]) -> None:
        """The likelihood's closed form."""
        self.likelihood.maximise(total)
