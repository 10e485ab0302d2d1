"""Binary latents with an encoder: Gumbel-softmax (Jang, Gu and Poole, ICLR 2017; Maddison, Mnih and
Teh, ICLR 2017).

    z_h ~ Bern(pi_h),    x | z ~ likelihood(decoder(z)),    q(z_h | x) = Bern(sigmoid(l_h(x)))

Objective: z relaxed to sigmoid((l + logit u) / temperature), u uniform, under the divergence of the
binary latents in closed form, as Jang et al. have it; so it bounds nothing. The bound that is
reported draws binary z. With `prior: learned`, pi is the mean activity of an epoch, which has the
least divergence. While it cools, the temperature falls from `hot` by the same factor each step.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from distvae.config import GumbelModel
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.posteriors import Binary, Encoded, Encoder
from distvae.models.registry import register
from distvae.models.vae import VAE
from distvae.numerics.figures import declare
from distvae.numerics.noise import Noise

declare("sparsity", "active")
PI = (1e-6, 1 - 1e-6)


class BinaryHead(nn.Module):
    """From features to binary latents."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, latent)

    def forward(self, features: Tensor) -> Binary:
        """Return the posterior, against a fair coin."""
        logits = self.linear(features)
        return Binary(logits, torch.zeros_like(logits), 1.0)


@register(GumbelModel)
class Gumbel(VAE):
    """A VAE with binary latents."""

    config: GumbelModel

    def __init__(self, config: GumbelModel, dims: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__(config, dims, shape)
        self.pi: Tensor
        self.register_buffer("pi", torch.full((config.latent,), config.alpha))
        self.temperature = config.temperature

    def head(self, width: int) -> nn.Module:
        """Return the layer of logits."""
        return BinaryHead(width, self.code_size)

    def posterior(self, encode: Encoder, u: Tensor) -> Encoded:
        """Return the encoder's posterior, against pi and at the present temperature."""
        q = encode(u)
        assert isinstance(q, Binary)
        return replace(
            q, prior_logits=self.pi.logit().expand_as(q.logits), temperature=self.temperature
        )

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """Return binary states (B, 1, H) drawn from pi."""
        return (noise.uniform("spike", 1, self.code_size) < self.pi).to(self.pi.dtype)

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
        """Return the mean number of active latents."""
        return {"active": float(total["active"].sum() / total["rows"])}
