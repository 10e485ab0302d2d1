"""Truncated variational autoencoder (Guiraud, Drefs and Luecke; ICLR 2022 submission, ECML 2022).

    z_h ~ Bern(pi_h),    x | z ~ N(mu(z; W), sigma^2 I)  or  Bern(sigmoid(mu(z; W)))

There is no encoder: q(z | x_n) is the exact posterior restricted to a set of S binary states kept for the data point,
and log sum_{z kept} p(x_n, z) bounds log p(x_n). W ascends that sum by its gradient, the q-weighted error; pi and
sigma^2 have closed forms, taken once per epoch. With no hidden layer the model is binary sparse coding.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distvae.config import TVAEModel
from distvae.interface import Batch
from distvae.models.likelihoods import LIKELIHOODS, Gaussian
from distvae.models.nets import mlp
from distvae.models.population import tabulate, unpack
from distvae.models.registry import register
from distvae.noise import Noise

PI = (1e-5, 1 - 1e-5)
DEAD = 1.0  # rows of an epoch in which a latent must be active to live
SCORED = 256  # rows whose states share one table: a larger one shares more, but each output meets each row


@dataclass(frozen=True, slots=True)
class Truncated:
    """q(z) proportional to p(x, z) on the kept states, zero elsewhere.

    Rows share states, so the states stand in a table, each once, and rows point into it: what the model makes of a
    state is made once, and its gradient gathered once.
    """

    table: Tensor
    """(U, H) zeros and ones."""
    place: Tensor
    """(B, S) where in the table each kept state of each row is."""
    log_likelihood: Tensor
    """(B, S) log p(x | z)."""
    log_prior: Tensor
    """(B, S) log p(z)."""

    @property
    def states(self) -> Tensor:
        """(B, S, H), distinct in each row."""
        return self.table[self.place]

    @property
    def log_joint(self) -> Tensor:
        """(B, S) log p(x, z)."""
        return self.log_likelihood + self.log_prior

    @property
    def weight(self) -> Tensor:
        """(B, S) q."""
        return self.log_joint.softmax(1)

    @property
    def code(self) -> Tensor:
        """(B, H) E_q[z]."""
        rows, table = len(self.place), len(self.table)
        share = self.weight.new_zeros(rows, table).scatter_add_(1, self.place, self.weight)
        return share @ self.table

    @property
    def best(self) -> Tensor:
        """(B, H) the kept state of largest probability."""
        return self.table[self.place.gather(1, self.log_joint.argmax(1, keepdim=True))[:, 0]]

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """All kept states with q, or draws from them with equal weights."""
        if draws == 0 or noise is None:
            return self.states, self.weight
        ladder = self.weight.cumsum(1)
        drawn = torch.searchsorted(ladder, noise.uniform("state", draws) * ladder[:, -1:])
        place = self.place.gather(1, drawn.clamp_max(self.place.shape[1] - 1))
        return self.table[place], ladder.new_full(place.shape, 1 / draws)

    def log_ratio(self, z: Tensor) -> Tensor:
        """(B, S) log p(z) - log q(z) at kept states; minus infinity at any other."""
        same = (z[:, :, None] == self.states[:, None]).all(-1)
        ratio = self.log_prior - self.log_joint.log_softmax(1)
        return ratio[:, None].expand_as(same).masked_fill(~same, -torch.inf).amax(-1)


@register(TVAEModel)
class TVAE(nn.Module):
    """p(x, z) with binary latents."""

    pi: Tensor

    def __init__(self, config: TVAEModel, dims: int) -> None:
        super().__init__()
        self.config = config
        self.decoder = mlp(config.latent, config.hidden, dims, config.activation)
        if config.output == "sigmoid":
            self.decoder.append(nn.Sigmoid())
        for layer in self.decoder:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.likelihood = LIKELIHOODS[config.likelihood]()
        self.register_buffer("pi", torch.full((config.latent,), 1 / config.latent))

    def begin(self, blocks: Iterable[Tensor]) -> None:
        """Set sigma^2 to its first value, that of the configuration or of the data."""
        if isinstance(self.likelihood, Gaussian):
            given = self.config.variance
            self.likelihood.variance.fill_(_variance(blocks) if given is None else given)

    @property
    def states(self) -> int:
        """Bits of a state."""
        return self.config.latent

    def prior(self, noise: Noise, estep: Any) -> Tensor:
        """(B, 1, H) states drawn from the prior."""
        return (noise.uniform("state", 1, self.states) < self.pi).float()

    def output(self, z: Tensor) -> Tensor:
        """The likelihood's parameter."""
        output: Tensor = self.decoder(z)
        return output

    def decode(self, z: Tensor) -> Tensor:
        """E[x | z]."""
        return self.likelihood.mean(self.output(z))

    def log_prior(self, z: Tensor) -> Tensor:
        """(...) log p(z)."""
        pi = self.pi.clamp(*PI)
        return z @ (pi.log() - torch.log1p(-pi)) + torch.log1p(-pi).sum()

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """(B, S) log p(x | z) over what was observed."""
        density: Tensor = self.likelihood(batch.x, self.output(z), batch.mask)
        return density

    def posterior(self, batch: Batch, words: Tensor) -> Truncated:
        """The posterior on these states (B, S, W), under the parameters of now."""
        distinct, place = tabulate(words)
        table = unpack(distinct, self.states).to(batch.x.dtype)
        density = self.likelihood.pairs(batch.x, self.output(table), place, batch.mask)
        return Truncated(table, place, density, self.log_prior(table)[place])

    def score(self, batch: Batch, words: Tensor) -> Tensor:
        """(B, S) log p(x, z) of states (B, S, W), some rows at a time."""
        pieces = range(0, len(words), SCORED)
        parts = (Batch(*(None if t is None else t[i : i + SCORED] for t in batch)) for i in pieces)  # type: ignore[arg-type]
        return torch.cat(
            [self.posterior(part, words[i : i + SCORED]).log_joint for i, part in zip(pieces, parts, strict=True)]
        )

    def bound(self, batch: Batch, q: Truncated, noise: Noise) -> Tensor:
        """(B,) log sum over the kept states of p(x, z)."""
        return q.log_joint.logsumexp(1)

    def objective(self, batch: Batch, q: Truncated, noise: Noise) -> Tensor:
        """(B,) the bound itself: its gradient is that of the q-weighted error."""
        return self.bound(batch, q, noise)

    def project(self) -> None:
        """Nothing to return to."""

    def at(self, step: float) -> None:
        """Nothing warms up."""

    def statistics(self, batch: Batch, q: Truncated, noise: Noise) -> dict[str, Tensor]:
        """What pi and sigma^2 need."""
        weight = q.weight
        active = q.table.new_zeros(len(q.table)).index_add_(0, q.place.flatten(), weight.flatten()) @ q.table
        sums = {"active": active, "rows": weight.new_tensor(len(weight))}
        return sums | self.likelihood.statistics(batch.x, q.log_likelihood, weight, batch.mask)

    def telemetry(self, total: dict[str, Tensor]) -> dict[str, float]:
        """Latents active on average, and dead; share of distinct states; states replaced per row; sigma."""
        rows = float(total["rows"])
        told = {
            "active": float(self.pi.sum()),
            "dead": float((self.pi * rows < DEAD).sum()),
        }
        if "looked_at" in total:
            told["substitutions"] = float(total["substitutions"]) / rows
            told["distinct_states"] = float(total["distinct"] / total["looked_at"])
        if isinstance(self.likelihood, Gaussian):
            told["sigma"] = float(self.likelihood.variance.sqrt())
        return told

    def maximise(self, total: dict[str, Tensor]) -> None:
        """pi is the mean activity, sigma^2 the mean squared error."""
        self.pi.copy_(total["active"] / total["rows"])
        self.likelihood.maximise(total)


def _variance(blocks: Iterable[Tensor]) -> float:
    """The mean over values of their variance over rows; missing values are NaN and left out."""
    sums = [(b.isfinite().sum(0), b.double().nansum(0), b.double().square().nansum(0)) for b in blocks]
    count, total, square = (torch.stack(part).sum(0) for part in zip(*sums, strict=True))
    return float((square / count - (total / count).square()).mean())
