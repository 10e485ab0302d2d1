"""Binary or categorical latents with an encoder: Gumbel-softmax (Jang, Gu and Poole, ICLR 2017;
Maddison, Mnih and Teh, ICLR 2017).

    z_h ~ Bern(pi_h),    x | z ~ likelihood(decoder(z)),    q(z_h | x) = Bern(sigmoid(l_h(x)))

With `categories`, each z_h is a one-hot vector of that length, with probabilities pi_h and
softmax(l_h). The decoder takes the concatenation of all vectors.

Objective: z is relaxed to sigmoid((l + logit u) / temperature) or to softmax((l - log(-log u)) /
temperature), with u uniform. The KL term is the divergence of the discrete latents in closed form,
as in Jang et al., so the objective is not a bound. The reported bound draws discrete z. With
`prior: learned`, pi is the mean activity of an epoch, which minimises the divergence. During
`cooling` steps, the temperature falls from `hot` to `temperature` by a constant factor per step.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from distvae.config import GumbelModel
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.discrete import Binary, Categorical
from distvae.models.posteriors import Encoded, Encoder
from distvae.models.registry import register
from distvae.models.vae import VAE
from distvae.numerics.metrics import declare
from distvae.numerics.noise import Noise

declare("sparsity", "active")
PI = (1e-6, 1 - 1e-6)


class BinaryHead(nn.Module):
    """The layer from features to binary latents."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, latent)

    def forward(self, features: Tensor) -> Binary:
        """Return the posterior, with a placeholder prior of probability 1/2."""
        logits = self.linear(features)
        return Binary(logits, torch.zeros_like(logits), 1.0)


class CategoricalHead(nn.Module):
    """The layer from features to categorical latents."""

    def __init__(self, width: int, latent: int, categories: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, latent * categories)
        self.shape = (latent, categories)

    def forward(self, features: Tensor) -> Categorical:
        """Return the posterior, with a placeholder prior of equally probable categories."""
        logits = self.linear(features).unflatten(-1, self.shape)
        return Categorical(logits, torch.zeros_like(logits), 1.0)


@register(GumbelModel)
class Gumbel(VAE):
    """A VAE with binary or categorical latents."""

    config: GumbelModel

    def __init__(self, config: GumbelModel, dims: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__(config, dims, shape)
        self.pi: Tensor
        probability = 1 / config.categories if config.categories else config.alpha
        self.register_buffer("pi", torch.full((config.code_size,), probability))
        self.temperature = config.temperature

    def head(self, width: int) -> nn.Module:
        """Return the layer of logits."""
        config = self.config
        if config.categories:
            return CategoricalHead(width, config.latent, config.categories)
        return BinaryHead(width, config.latent)

    def posterior(self, encode: Encoder, u: Tensor) -> Encoded:
        """Return the encoder's posterior with prior pi and the current temperature."""
        q = encode(u)
        assert isinstance(q, Binary | Categorical)
        prior_logits = self.prior_logits.expand_as(q.logits)
        return replace(q, prior_logits=prior_logits, temperature=self.temperature)

    @property
    def prior_logits(self) -> Tensor:
        """The logits (H,) of bits, or (H, K) of categories."""
        if self.config.categories is None:
            return self.pi.logit()
        return self.pi.log().view(-1, self.config.categories)

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """Return discrete states (B, 1, H) drawn from pi."""
        logits = self.prior_logits.expand(len(noise.row), *self.prior_logits.shape)
        kind = Categorical if self.config.categories else Binary
        return kind(logits, logits, self.temperature).points(1, noise)[0]

    def at(self, step: float) -> None:
        """Set beta and the temperature."""
        super().at(step)
        config = self.config
        left = max(0.0, 1 - step / config.cooling) if config.cooling else 0.0
        self.temperature = config.temperature * math.pow(config.hot / config.temperature, left)

    def statistics(self, batch: Batch, q: Encoded, noise: Noise) -> Sums:
        """Add the activity of each latent."""
        active = q.code.sum(0)
        return super().statistics(batch, q, noise) | {
            "active": active,
            "rows": active.new_full((), len(batch.x)),
        }

    def maximise(self, total: Sums) -> None:
        """Update the prior, if it is learned."""
        super().maximise(total)
        if self.config.prior == "learned":
            self.pi.copy_((total["active"] / total["rows"]).clamp(*PI))

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return the mean number of active values of a code."""
        return {"active": float(total["active"].sum() / total["rows"])}
