"""Amortised posteriors, which an encoder's heads parametrise. Each carries its prior."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from distvae.interface import Posterior
from distvae.numerics.noise import Noise

LEAST_NATS = 0.5
"""A Gaussian value of a code is active if its KL divergence from the prior is above this."""
LOG_VARIANCE = (-20.0, 10.0)  # variances stay safe in float32; trained models stay well inside


class Encoded(Posterior, Protocol):
    """A posterior that can be differentiated through."""

    def kl(self) -> Tensor:
        """Return the KL divergence from the prior, (B,), in closed form."""

    def sample(self, draws: int, noise: Noise) -> Tensor:
        """Return reparametrised draws (B, S, H) for the objective."""


@runtime_checkable
class Sparsifiable(Protocol):
    """A posterior whose mean has no zeros, but that says which values are active."""

    @property
    def active_code(self) -> Tensor:
        """(B, H) the values that are active, and zeros elsewhere."""


def active_code(q: Posterior) -> Tensor:
    """Return the code of a posterior (B, H) with zeros for values that are not active."""
    return q.active_code if isinstance(q, Sparsifiable) else q.code


@runtime_checkable
class Redrawable(Protocol):
    """A posterior that separates which values are active from the values themselves."""

    def redrawn(self, draws: int, noise: Noise) -> Tensor:
        """Return states (B, S, H). Active values are drawn from the prior; inactive ones are 0."""


Encoder = Callable[[Tensor], Encoded]
"""A function from transformed inputs to posteriors."""


@runtime_checkable
class Encodes(Protocol):
    """An E-step with an encoder."""

    def encode(self, u: Tensor) -> Encoded:
        """Return the posterior of transformed inputs."""


def log_normal(z: Tensor, mean: Tensor | float, log_variance: Tensor) -> Tensor:
    """Return log N(z; mean, exp(log_variance)), elementwise."""
    return -0.5 * (
        (z - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi)
    )


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)), elementwise."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(Bern(p) || Bern(q)), elementwise."""
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def draw_normal(mean: Tensor, log_variance: Tensor, draws: int, noise: Noise) -> Tensor:
    """Return draws (B, S, H) from N(mean, diag exp(log_variance))."""
    epsilon = noise.normal("slab", draws, mean.shape[-1])
    return torch.addcmul(mean[:, None], epsilon, (0.5 * log_variance).exp()[:, None])


def equal_weights(z: Tensor) -> Tensor:
    """Return equal weights (B, S) for drawn points (B, S, H)."""
    return z.new_full(z.shape[:2], 1 / z.shape[1])


@dataclass(frozen=True, slots=True)
class Gaussian:
    """N(mean, diag exp(log_variance)), with prior N(0, I)."""

    mean: Tensor
    log_variance: Tensor

    @property
    def code(self) -> Tensor:
        """(B, H) the mean."""
        return self.mean

    @property
    def active_code(self) -> Tensor:
        """(B, H) the mean where its value tells enough about x, and zero elsewhere."""
        return self.mean.where(self.nats() > LEAST_NATS, 0.0)

    @property
    def prior_log_variance(self) -> Tensor:
        """(B, H) the log variance of the prior."""
        return torch.zeros_like(self.mean)

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return draws with equal weights, or the mean."""
        z = self.mean[:, None] if draws == 0 or noise is None else self.sample(draws, noise)
        return z, equal_weights(z)

    def sample(self, draws: int, noise: Noise) -> Tensor:
        """Return reparametrised draws (B, S, H)."""
        return draw_normal(self.mean, self.log_variance, draws, noise)

    def redrawn(self, draws: int, noise: Noise) -> Tensor:
        """Return draws from the prior (B, S, H). Every value counts as active."""
        return (
            noise.normal("slab", draws, self.mean.shape[-1])
            * (0.5 * self.prior_log_variance).exp()[:, None]
        )

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S)."""
        prior = log_normal(z, 0.0, self.prior_log_variance[:, None])
        return (prior - log_normal(z, self.mean[:, None], self.log_variance[:, None])).sum(-1)

    def nats(self) -> Tensor:
        """Return the KL divergence of each value from the prior, (B, H), in closed form."""
        return gaussian_kl(self.mean, self.log_variance)

    def kl(self) -> Tensor:
        """Return the KL divergence from the prior, (B,)."""
        return self.nats().sum(-1)


@dataclass(frozen=True, slots=True)
class LearnedVariance(Gaussian):
    """N(mean, diag exp(log_variance)), with prior N(0, diag gamma), gamma = mean^2 + variance.

    This gamma minimises the KL divergence, so it need not be stored. The minimum is
    1/2 sum log(1 + mean^2 / variance). By the envelope theorem, the gradient of the minimum is
    the gradient of the divergence at this gamma.
    """

    @property
    def prior_log_variance(self) -> Tensor:
        """(B, H) log gamma, computed without overflow."""
        tiny = torch.finfo(self.mean.dtype).tiny
        return torch.logaddexp(self.mean.square().clamp_min(tiny).log(), self.log_variance)

    def nats(self) -> Tensor:
        """Return the KL divergence of each value from the prior, (B, H), in closed form."""
        return 0.5 * (self.prior_log_variance - self.log_variance)


@dataclass(frozen=True, slots=True)
class SpikeAndSlab:
    """Each value is N(mean, exp(log_variance)) with probability gamma, and exactly zero otherwise.
    The prior is also a spike and slab.
    """

    gamma: Tensor
    mean: Tensor
    log_variance: Tensor
    sharpness: float
    prior_gamma: Tensor
    prior_mean: Tensor
    prior_log_variance: Tensor

    @property
    def code(self) -> Tensor:
        """(B, H) the posterior mean: gamma times the mean of the slab."""
        return self.gamma * self.mean

    @property
    def active_code(self) -> Tensor:
        """(B, H) the mean of the slab where the value is probably active, and zero elsewhere."""
        return self.mean.where(self.gamma > 0.5, 0.0)

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return draws with hard gates and equal weights, or the mean."""
        if draws == 0 or noise is None:
            return self.code[:, None], equal_weights(self.code[:, None])
        z = self._gate(draws, noise).gt(0) * self._slab(draws, noise)
        return z, equal_weights(z)

    def sample(self, draws: int, noise: Noise) -> Tensor:
        """Return draws (B, S, H) with relaxed gates for the objective. They have no density."""
        return (self.sharpness * self._gate(draws, noise)).sigmoid() * self._slab(draws, noise)

    def redrawn(self, draws: int, noise: Noise) -> Tensor:
        """Return draws from the prior's slabs where gamma > 0.5, and zeros elsewhere, (B, S, H)."""
        slab = draw_normal(self.prior_mean, self.prior_log_variance, draws, noise)
        return self.gamma.gt(0.5)[:, None] * slab

    def _gate(self, draws: int, noise: Noise) -> Tensor:
        """Return a number for each value. It is positive with probability gamma."""
        return noise.uniform("spike", draws, self.mean.shape[-1]) + (self.gamma[:, None] - 1)

    def _slab(self, draws: int, noise: Noise) -> Tensor:
        return draw_normal(self.mean, self.log_variance, draws, noise)

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S). At zero it compares probabilities, elsewhere
        densities.
        """
        slab = log_normal(z, self.prior_mean[:, None], self.prior_log_variance[:, None])
        slab = slab - log_normal(z, self.mean[:, None], self.log_variance[:, None])
        slab = slab + (self.prior_gamma.log() - self.gamma.log())[:, None]
        atom = (torch.log1p(-self.prior_gamma) - torch.log1p(-self.gamma))[:, None]
        return torch.where(z == 0, atom, slab).sum(-1)

    def kl(self) -> Tensor:
        """Return the KL divergence (B,): spikes, plus slabs weighted by gamma."""
        shift, scale = self.mean - self.prior_mean, self.prior_log_variance
        slab = gaussian_kl(shift * (-0.5 * scale).exp(), self.log_variance - scale)
        return (self.gamma * slab + bernoulli_kl(self.gamma, self.prior_gamma)).sum(-1)


class GaussianHead(nn.Module):
    """The layer from features to a `Gaussian` or `LearnedVariance` posterior."""

    def __init__(self, width: int, latent: int, kind: type[Gaussian] = Gaussian) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * latent)
        self.kind = kind

    def forward(self, features: Tensor) -> Gaussian:
        """Return the posterior."""
        return self.split(self.linear(features))

    def split(self, output: Tensor) -> Gaussian:
        """Return the posterior, given the output of the linear layer."""
        mean, log_variance = output.chunk(2, -1)
        return self.kind(mean, log_variance.clamp(*LOG_VARIANCE))
