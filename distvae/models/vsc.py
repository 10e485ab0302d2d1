"""Variational sparse coding (Tonolini, Jensen and Murray-Smith, UAI 2020), and its reproduction
(ReScience 2019).

    z_j = s_j w_j,    s_j ~ Bern(alpha),    w_j ~ N(0, 1)
    q(z_j | x) = gamma_j N(mu_j, sigma_j^2) + (1 - gamma_j) delta_0

Objective: gates relaxed to sigmoid(c (eta + gamma - 1)), eta uniform. The bound that is reported
draws hard gates. `prior: fixed` is the reproduction's; its code raises c by 0.001 per epoch (its
text: per iteration), ours keeps it. `prior: pseudo` is the paper's: a classifier softly selects one
of a few learned pseudo-inputs, and the prior is the encoder's own spike-and-slab there; the share
of active values is drawn to alpha by H KL(mean spike || alpha), per row as in the authors' code,
outside the bound. As the selection looks at x, that objective bounds log p(x) only given the
selection. Until `slab_warmup` ends, slabs are drawn towards N(0, 1), so that only spikes carry
information.
"""

from dataclasses import replace
from typing import NamedTuple

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
from distvae.models.registry import register
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise

SPIKE = (1e-6, 1 - 1e-6)


class Spikes(NamedTuple):
    """Settings of a spike and slab."""

    alpha: float
    """The prior probability of a spike."""
    sharpness: float
    """The slope of the relaxed gate."""
    warmth: float
    """The share of information that slabs carry."""
    least: float
    """The smallest probability of a spike; one minus it is the largest."""


class SpikeAndSlabHead(nn.Module):
    """From features to a spike and slab; log gamma = -relu(-f), so that gamma = 1 is reached and
    not only neared.
    """

    def __init__(self, width: int, config: VSCModel) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 3 * config.latent)
        self.config = config

    def forward(self, features: Tensor) -> SpikeAndSlab:
        """Return the posterior against the fixed prior."""
        return self.split(self.linear(features))

    def split(self, output: Tensor) -> SpikeAndSlab:
        """Return the posterior that the output of the linear layer says."""
        mean, log_variance, f = output.chunk(3, -1)
        gamma = nn.functional.relu(-f).neg().exp().clamp(*SPIKE)
        zero, alpha = torch.zeros_like(mean), torch.full_like(mean, self.config.alpha)
        return SpikeAndSlab(
            gamma, mean, log_variance.clamp(*LOG_VARIANCE), self.config.sharpness, alpha, zero, zero
        )


class PseudoInputs(nn.Module):
    """A few learned points of the encoder's input, and a classifier that softly selects one for
    each row.
    """

    def __init__(self, count: int, dims: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(count, dims))
        self.classifier = nn.Linear(dims, count)

    def forward(self, u: Tensor) -> Tensor:
        """Return the selected pseudo-inputs (B, D)."""
        selected: Tensor = self.classifier(u).softmax(-1) @ self.points
        return selected


@register(VSCModel)
class VSC(VAE):
    """A VAE with spike-and-slab latents."""

    config: VSCModel

    def __init__(self, config: VSCModel, dims: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__(config, dims, shape)
        self.pseudo = PseudoInputs(config.pseudo_inputs, dims) if config.prior == "pseudo" else None
        self.warmth = 1.0

    def head(self, width: int) -> nn.Module:
        """Return the layer of spikes and slabs."""
        return SpikeAndSlabHead(width, self.config)

    @property
    def spikes(self) -> Spikes:
        """The settings of this moment, for gradients by hand."""
        config = self.config
        return Spikes(config.alpha, config.sharpness, self.warmth, SPIKE[0])

    def posterior(self, encode: Encoder, u: Tensor) -> Encoded:
        """Return the spike and slab, against alpha or that of the selected pseudo-input."""
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
        """Return codes (B, 1, H) of spikes and slabs, from alpha or at a pseudo-input drawn for
        each row.
        """
        if self.pseudo is not None:
            choice = noise.bits("choice", 1)[:, 0].remainder(self.config.pseudo_inputs)
            assert isinstance(estep, Encodes)
            q = estep.encode(self.pseudo.points[choice])
            return q.points(1, noise)[0]
        active = noise.uniform("spike", 1, self.code_size) < self.config.alpha
        return active * noise.normal("slab", 1, self.code_size)

    def penalty(self, q: Encoded) -> Tensor:
        """Return the penalty that draws the pseudo-inputs' mean spike to alpha, (B,)."""
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
        """True once all warm-ups have ended, and the objective stays the same."""
        return super().is_warm and self.warmth == 1
