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
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.config import GumbelModel
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.posteriors import Encoded, Encoder, equal_weights
from distvae.models.vae import VAE
from distvae.numerics.metrics import declare
from distvae.numerics.noise import Noise

declare("sparsity", "active")
PI = (1e-6, 1 - 1e-6)


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

    @property
    def active_code(self) -> Tensor:
        """(B, H) the most probable bits."""
        return (self.logits > 0).to(self.logits.dtype)

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

    @property
    def active_code(self) -> Tensor:
        """(B, H K) 1 for the most probable category of each latent."""
        likeliest = self.logits.argmax(-1, keepdim=True)
        return torch.zeros_like(self.logits).scatter_(-1, likeliest, 1.0).flatten(1)

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


class DiscreteHead(nn.Module):
    """The layer from features to the logits of bits (H,), or of categories (H, K)."""

    def __init__(self, width: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, math.prod(shape))
        self.shape = shape

    def forward(self, features: Tensor) -> Binary | Categorical:
        """Return the posterior, with a placeholder prior of equally probable values."""
        logits = self.linear(features).unflatten(-1, self.shape)
        kind = Binary if len(self.shape) == 1 else Categorical
        return kind(logits, torch.zeros_like(logits), 1.0)


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
        latent, categories = self.config.latent, self.config.categories
        return DiscreteHead(width, (latent, categories) if categories else (latent,))

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
