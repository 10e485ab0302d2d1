"""The gradients of models with an encoder, by hand.

Autograd computes the same, up to rounding (`tests/engines/test_encoder_engine.py`). Batches of the
same size share a pass and its buffers.
"""

from itertools import chain

import torch

from distvae import config
from distvae.engines.dense_layers import find_weights
from distvae.engines.encoder_latents import make_latents
from distvae.engines.encoder_pass import DENSITIES, Net, Pass
from distvae.engines.encoder_protocol import HasEncoder, has_encoder
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise

SIZES = 4
"""Sizes of batches for which buffers are kept."""


class EncoderEngine:
    """Gradients of the objective of a model with an encoder."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.passes: dict[int, Pass] = {}

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Set the gradients of minus the mean objective over so many rows of all workers.

        Return the sum of the objective over the batch, and what closed forms need.
        """
        self.net.gradients.assign()
        return self._pass(len(batch.x)).differentiate(batch, noise, rows)

    def _pass(self, rows: int) -> Pass:
        if rows not in self.passes:
            if len(self.passes) == SIZES:
                self.passes.pop(next(iter(self.passes)))
            self.passes[rows] = Pass(self.net, rows)
        return self.passes[rows]


def find_encoder_engine(model: VAE, estep: AnyEStep) -> EncoderEngine | None:
    """Return an engine for dense nets of known models; None leaves gradients to autograd."""
    if not has_encoder(estep) or not _serves(model, estep):
        return None
    encoder = find_weights(estep.trunk)
    if encoder is None or find_weights(model.decoder) is None:
        return None
    return EncoderEngine(Net(model, estep, encoder))


def _serves(model: VAE, estep: HasEncoder) -> bool:
    """Return whether loops know the model, its likelihood, its numbers and its encoder's inputs."""
    dtypes = {parameter.dtype for parameter in chain(model.parameters(), estep.parameters())}
    if dtypes not in ({torch.float32}, {torch.float64}):
        return False
    known = type(estep.config) is config.Amortised and type(model.likelihood) in DENSITIES
    return known and make_latents(model, 1, torch.float32) is not None
