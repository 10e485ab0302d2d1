"""Variational sparse coding (Tonolini, Jensen and Murray-Smith, UAI 2020), and its reproduction
(ReScience 2019).

    z_j = s_j w_j,    s_j ~ Bern(alpha),    w_j ~ N(0, 1)
    q(z_j | x) = gamma_j N(mu_j, sigma_j^2) + (1 - gamma_j) delta_0

Objective: gates are relaxed to sigmoid(c (eta + gamma - 1)) with eta uniform. The reported bound
draws hard gates. `prior: fixed` is the prior of the reproduction. Its code raises c by 0.001 per
epoch (its text says per iteration); here c is constant. `prior: pseudo` is the prior of the paper:
a classifier softly selects among a few learned pseudo-inputs, and the prior is the encoder's
spike-and-slab at the selected pseudo-input. A penalty H KL(mean spike || alpha) pulls the share of
active values to alpha. The penalty is per row, as in the authors' code, and not part of the bound.
Because the selection depends on x, the objective bounds log p(x) only given the selection. Until
`slab_warmup` ends, slabs are shrunk towards N(0, 1), so that spikes carry most information.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from distvae.config import VSCModel
from distvae.interface import AnyEStep
from distvae.models.posteriors import (
    LOG_VARIANCE,
    Encoded,
    Encoder,
    Encodes,
    SpikeAndSlab,
    bernoulli_kl,
)
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise

SPIKE = (1e-6, 1 - 1e-6)


class SpikeAndSlabHead(nn.Module):
    """The layer from features to a spike and slab. With log gamma = -relu(-f), gamma can reach 1
    exactly (before it is clamped to `SPIKE`).
    """

    def __init__(self, width: int, config: VSCModel) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 3 * config.latent)
        self.config = config

    def forward(self, features: Tensor) -> SpikeAndSlab:
        """Return the posterior with the fixed prior."""
        return self.split(self.linear(features))

    def split(self, output: Tensor) -> SpikeAndSlab:
        """Return the posterior, given the output of the linear layer."""
        mean, log_variance, f = output.chunk(3, -1)
        gamma = nn.functional.relu(-f).neg().exp().clamp(*SPIKE)
        zero, alpha = torch.zeros_like(mean), torch.full_like(mean, self.config.alpha)
        return SpikeAndSlab(
            gamma, mean, log_variance.clamp(*LOG_VARIANCE), self.config.sharpness, alpha, zero, zero
        )


class PseudoInputs(nn.Module):
    """Learned pseudo-inputs of the encoder, and a classifier that softly selects among them."""

    def __init__(self, count: int, dims: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(count, dims))
        self.classifier = nn.Linear(dims, count)

    def forward(self, u: Tensor) -> Tensor:
        """Return the selected pseudo-input of each row, (B, D)."""
        selected: Tensor = self.classifier(u).softmax(-1) @ self.points
        return selected


class VSC(VAE):
    """A VAE with spike-and-slab latents."""

    config: VSCModel

    def __init__(self, config: VSCModel, dims: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__(config, dims, shape)
        self.pseudo = PseudoInputs(config.pseudo_inputs, dims) if config.prior == "pseudo" else None
        self.warmth = 1.0

    def head(self, width: int) -> nn.Module:
        """Return the layer from an encoder's features to spikes and slabs."""
        return SpikeAndSlabHead(width, self.config)

    def posterior(self, encode: Encoder, u: Tensor) -> Encoded:
        """Return the posterior with the fixed prior, or with the prior at the selected
        pseudo-input.
        """
        q = self._warmed(encode(u))
        if self.pseudo is None:
            return q
        p = self._warmed(encode(self.pseudo(u)))
        return replace(q, prior_gamma=p.gamma, prior_mean=p.mean, prior_log_variance=p.log_variance)

    def _warmed(self, q: Encoded) -> SpikeAndSlab:
        assert isinstance(q, SpikeAndSlab)
        if self.warmth == 1:
            return q
        return replace(q, mean=self.warmth * q.mean, log_variance=self.warmth * q.log_variance)

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """Return codes (B, 1, H) drawn from the fixed prior, or from the posterior at a random
        pseudo-input for each row.
        """
        if self.pseudo is not None:
            choice = noise.bits("choice", 1)[:, 0].remainder(self.config.pseudo_inputs)
            assert isinstance(estep, Encodes)
            q = estep.encode(self.pseudo.points[choice])
            return q.points(1, noise)[0]
        active = noise.uniform("spike", 1, self.code_size) < self.config.alpha
        return active * noise.normal("slab", 1, self.code_size)

    def penalty(self, q: Encoded) -> Tensor:
        """Return the penalty (B,) that pulls the mean spike of the pseudo-inputs to alpha."""
        if self.pseudo is None:
            return super().penalty(q)
        assert isinstance(q, SpikeAndSlab)
        mean = q.prior_gamma.mean(-1)
        return self.code_size * bernoulli_kl(mean, torch.full_like(mean, self.config.alpha))

    def at(self, step: float) -> None:
        """Set beta, and the share of information that the slabs carry."""
        super().at(step)
        begin, end = self.config.slab_warmup
        warmth = 1.0 if step >= end else max(0.0, (step - begin) / max(1, end - begin))
        if warmth != self.warmth:
            self.warmth = warmth

    @property
    def is_warm(self) -> bool:
        """True once all warm-ups have ended, so that the objective no longer changes."""
        return super().is_warm and self.warmth == 1
