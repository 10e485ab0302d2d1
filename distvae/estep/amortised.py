"""Posteriors by an encoder's forward pass. The input transform is part of the encoder."""

from collections.abc import Iterable
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor, nn

from distvae import config
from distvae.interface import Batch
from distvae.models.nets import encoder
from distvae.models.posteriors import Encoded
from distvae.models.vae import VAE
from distvae.numerics.arrays import FLOOR, Facts, Moments
from distvae.numerics.rows import HeldRows

MIN_DEVIATION = 1e-6
"""Columns with a smaller standard deviation (of the log, or relative to the mean) are not rescaled.
"""


class Amortised(nn.Module):
    """An encoder: x -> transformed input u -> features -> the model's posterior."""

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
        """Compute the mean and the standard deviation of each column, to standardise inputs.

        A column that was never observed is not rescaled.
        """
        if not self.config.standardises:
            return
        inputs = (self._scaled(block).numpy(force=True) for block in blocks)
        self._standardise(reduce(add, map(Moments.of, inputs)))

    def prepare_from(self, facts: Facts) -> bool:
        """Set the mean and the standard deviation of each column as `prepare` does, from recorded
        moments of the values or their logarithms.
        """
        if not self.config.standardises:
            return True
        if not self.config.takes_logarithm:
            self._standardise(facts.values)
            return True
        if facts.logarithms is None or self.config.floor != FLOOR:
            return False
        self._standardise(facts.logarithms)
        return True

    def _scaled(self, x: Tensor) -> Tensor:
        """Return values or their logarithms."""
        return (x + self.config.floor).log() if self.config.takes_logarithm else x

    def _standardise(self, moments: Moments) -> None:
        observed = (np.nan_to_num(values) for values in (moments.mean, moments.variance))
        mean, variance = map(torch.from_numpy, observed)
        deviation = variance.sqrt()
        least = MIN_DEVIATION * (1.0 if self.config.takes_logarithm else mean.abs())
        self.shift.copy_(mean)
        self.scale.copy_(torch.where(deviation > least, deviation, 1.0))

    def transform(self, batch: Batch) -> Tensor:
        """Return the input of the encoder, (B, D).

        A missing value is zero, which is the mean if inputs are standardised.
        """
        if batch.seen is not None:
            return batch.seen
        u = self._scaled(batch.x)
        if self.config.standardises:
            u = (u - self.shift) / self.scale
        return u if batch.mask is None else u.where(batch.mask, 0.0)

    def encode(self, u: Tensor) -> Encoded:
        """Return the posterior of transformed inputs, before the model sets its prior."""
        q: Encoded = self.head(self.trunk(u))
        return q

    def __call__(self, model: VAE, batch: Batch) -> Encoded:
        """Return the posteriors of training rows."""
        return model.posterior(self.encode, self.transform(batch))

    def infer(self, model: VAE, batch: Batch, sweeps: int | None = None) -> Encoded:
        """Return the posteriors of new data by a forward pass."""
        return self(model, batch)
