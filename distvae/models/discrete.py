"""Posteriors of discrete latents, with relaxed draws that can be differentiated through."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from distvae.models.posteriors import equal_weights
from distvae.numerics.noise import Noise


@dataclass(frozen=True, slots=True)
class Binary:
    """Each value is one with probability sigmoid(logits), else zero; so is each of the prior."""

    logits: Tensor
    prior_logits: Tensor
    temperature: float

    @property
    def code(self) -> Tensor:
        """(B, H) the probability of each one."""
        return self.logits.sigmoid()

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return binary draws with equal weights, or the mean."""
        z = (
            self.code[:, None]
            if draws == 0 or noise is None
            else self._gate(draws, noise).gt(0).to(self.logits.dtype)
        )
        return z, equal_weights(z)

    def sample(self, draws: int, noise: Noise) -> Tensor:
        """Return relaxed draws (B, S, H).

        They tend to the binary draws of the same noise as the temperature falls.
        """
        return (self._gate(draws, noise) / self.temperature).sigmoid()

    def _gate(self, draws: int, noise: Noise) -> Tensor:
        """Return a number for each value that is positive with the probability of a one."""
        return self.logits[:, None] + noise.uniform("spike", draws, self.logits.shape[-1]).logit()

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S)."""
        return (z * (self.prior_logits - self.logits)[:, None] - self._excess()[:, None]).sum(-1)

    def kl(self) -> Tensor:
        """Return the divergence from the prior, (B,), in closed form."""
        return (self.code * (self.logits - self.prior_logits) + self._excess()).sum(-1)

    def _excess(self) -> Tensor:
        """Return log q(0) - log p(0), (B, H)."""
        return functional.softplus(self.prior_logits) - functional.softplus(self.logits)


@dataclass(frozen=True, slots=True)
class Categorical:
    """Each latent is one of K categories with probabilities softmax(logits); so is each of the
    prior. A state has the unit vectors of all latents side by side.
    """

    logits: Tensor
    """(B, H, K)."""
    prior_logits: Tensor
    temperature: float

    @property
    def code(self) -> Tensor:
        """(B, H K) the probability of each category."""
        return self.logits.softmax(-1).flatten(1)

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return draws of unit vectors with equal weights, or the mean."""
        if draws == 0 or noise is None:
            return self.code[:, None], equal_weights(self.code[:, None])
        perturbed = self._perturbed(draws, noise)
        largest = perturbed.argmax(-1, keepdim=True)
        z = torch.zeros_like(perturbed).scatter_(-1, largest, 1.0).flatten(2)
        return z, equal_weights(z)

    def sample(self, draws: int, noise: Noise) -> Tensor:
        """Return relaxed draws (B, S, H K).

        They tend to the unit vectors of the same noise as the temperature falls.
        """
        return (self._perturbed(draws, noise) / self.temperature).softmax(-1).flatten(2)

    def _perturbed(self, draws: int, noise: Noise) -> Tensor:
        """Return numbers (B, S, H, K), of which each category's is the largest of its latent with
        the category's probability: logits with Gumbel noise.
        """
        latent, categories = self.logits.shape[1:]
        uniform = noise.uniform("spike", draws, latent, categories)
        return self.logits[:, None] - (-uniform.log()).log()

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S)."""
        return -(z * self._log_ratios().flatten(1)[:, None]).sum(-1)

    def kl(self) -> Tensor:
        """Return the divergence from the prior, (B,), in closed form."""
        return (self.logits.softmax(-1) * self._log_ratios()).sum((1, 2))

    def _log_ratios(self) -> Tensor:
        """Return log q - log p of each category, (B, H, K)."""
        return self.logits.log_softmax(-1) - self.prior_logits.log_softmax(-1)
