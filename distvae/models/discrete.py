"""Posteriors of discrete latents, with relaxed draws that can be differentiated through."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from distvae.models.posteriors import equal_weights
from distvae.numerics.noise import Noise


@dataclass(frozen=True, slots=True)
class Binary:
    """Independent bits with probabilities sigmoid(logits), and a prior with its own logits."""

    logits: Tensor
    prior_logits: Tensor
    temperature: float

    @property
    def code(self) -> Tensor:
        """(B, H) the probability that each bit is 1."""
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

        As the temperature falls, they approach the binary draws of the same noise.
        """
        return (self._gate(draws, noise) / self.temperature).sigmoid()

    def _gate(self, draws: int, noise: Noise) -> Tensor:
        """Return a number for each bit. It is positive where the bit is 1."""
        return self.logits[:, None] + noise.uniform("spike", draws, self.logits.shape[-1]).logit()

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S)."""
        return (z * (self.prior_logits - self.logits)[:, None] - self._excess()[:, None]).sum(-1)

    def kl(self) -> Tensor:
        """Return the KL divergence from the prior, (B,), in closed form."""
        return (self.code * (self.logits - self.prior_logits) + self._excess()).sum(-1)

    def _excess(self) -> Tensor:
        """Return log q(0) - log p(0), (B, H)."""
        return functional.softplus(self.prior_logits) - functional.softplus(self.logits)


@dataclass(frozen=True, slots=True)
class Categorical:
    """Independent categorical latents with probabilities softmax(logits), and a prior with its own
    logits. A state is the concatenation of the latents' one-hot vectors.
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
        """Return one-hot draws with equal weights, or the mean."""
        if draws == 0 or noise is None:
            return self.code[:, None], equal_weights(self.code[:, None])
        perturbed = self._perturbed(draws, noise)
        largest = perturbed.argmax(-1, keepdim=True)
        z = torch.zeros_like(perturbed).scatter_(-1, largest, 1.0).flatten(2)
        return z, equal_weights(z)

    def sample(self, draws: int, noise: Noise) -> Tensor:
        """Return relaxed draws (B, S, H K).

        As the temperature falls, they approach the one-hot draws of the same noise.
        """
        return (self._perturbed(draws, noise) / self.temperature).softmax(-1).flatten(2)

    def _perturbed(self, draws: int, noise: Noise) -> Tensor:
        """Return logits plus Gumbel noise, (B, S, H, K). The argmax of a latent is a draw from
        it.
        """
        latent, categories = self.logits.shape[1:]
        uniform = noise.uniform("spike", draws, latent, categories)
        return self.logits[:, None] - (-uniform.log()).log()

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S)."""
        return -(z * self._log_ratios().flatten(1)[:, None]).sum(-1)

    def kl(self) -> Tensor:
        """Return the KL divergence from the prior, (B,), in closed form."""
        return (self.logits.softmax(-1) * self._log_ratios()).sum((1, 2))

    def _log_ratios(self) -> Tensor:
        """Return log q - log p of each category, (B, H, K)."""
        return self.logits.log_softmax(-1) - self.prior_logits.log_softmax(-1)
