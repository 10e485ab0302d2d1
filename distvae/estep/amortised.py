"""Posteriors by an encoder's forward pass. The input transform is part of the encoder, not of the
data.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from distvae import config
from distvae.estep.registry import register
from distvae.estep.stateless import Stateless
from distvae.interface import Batch
from distvae.models.nets import encoder
from distvae.models.posteriors import Encoded
from distvae.models.vae import VAE
from distvae.numerics.lanes import HeldRows


@register(config.Amortised)
class Amortised(Stateless):
    """x -> transformed input u -> features -> the model's posterior."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: config.Amortised, model: VAE) -> None:
        super().__init__()
        self.config = config
        self.trunk, width = encoder(config, model.dims, model.shape)
        self.head = model.head(width)
        self.register_buffer("shift", torch.zeros(model.dims))
        self.register_buffer("scale", torch.ones(model.dims))

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Take the statistics that standardise the input from the training data; a value never seen
        keeps its units.
        """
        if self.config.input != "log_standard":
            return
        count, total = torch.tensor(0), torch.zeros(2, len(self.shift), dtype=torch.float64)
        for block in blocks:
            u = (block + self.config.floor).log().double()
            count, total = (
                count + (~u.isnan()).sum(0),
                total + torch.stack([u.nansum(0), u.square().nansum(0)]),
            )
        mean, square = total / count.clamp_min(1)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        self.shift.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def transform(self, batch: Batch) -> Tensor:
        """(B, D) what the encoder sees; missing values are zero, the mean where inputs are
        standardised.
        """
        u = batch.x if self.config.input == "raw" else (batch.x + self.config.floor).log()
        u = u if self.config.input != "log_standard" else (u - self.shift) / self.scale
        return u if batch.mask is None else u.where(batch.mask, 0.0)

    def encode(self, u: Tensor) -> Encoded:
        """The posterior of transformed inputs, before the model has had its word on the prior."""
        return self.head(self.trunk(u))  # type: ignore[no-any-return]

    def forward(self, model: VAE, batch: Batch) -> Encoded:
        """Posteriors of rows in training."""
        return model.posterior(self.encode, self.transform(batch))

    def infer(self, model: VAE, batch: Batch, sweeps: int = 0) -> Encoded:
        """Posteriors of new data: the same forward pass."""
        return self.forward(model, batch)
