"""Truncated variational autoencoder (Guiraud, Drefs and Luecke; ICLR 2022 submission, ECML 2022).

    z_h ~ Bern(pi_h),    x | z ~ N(mu(z; W), sigma^2 I)  or  Bern(sigmoid(mu(z; W)))

There is no encoder: q(z | x_n) is the exact posterior restricted to a set of S binary states kept
for the data point, and log sum_{z kept} p(x_n, z) bounds log p(x_n). W ascends that sum by its
gradient, the q-weighted error; pi and sigma^2 have closed forms, taken once per epoch. With no
hidden layer the model is binary sparse coding. A deep one may begin as that: `model.linear` has its
hidden layers be the identity, which bits pass through a rectifier unchanged.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.config import TVAEModel
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.likelihoods import LIKELIHOODS, Gaussian
from distvae.models.nets import mlp
from distvae.models.population import States, heaviest, rounded, tabulate
from distvae.models.registry import register
from distvae.numerics.lanes import HeldRows
from distvae.numerics.noise import Noise

LEAST = 1e-5  # that a latent is active, or is not
DEAD = 1.0  # rows of an epoch in which a latent must be active to live
CACHED = 2**18  # numbers that a layer's activations may be on the CPU, to stay in its cache


@dataclass(frozen=True)
class Truncated:
    """q(z) proportional to p(x, z) on the kept states, zero elsewhere; no gradient goes through it.

    Rows share states, so the states stand in a table, each once, and rows point into it: what the
    model makes of a state is made once, and its gradient gathered once.
    """

    table: States
    """(U, H) the distinct states, and a few more that no row points at."""
    place: Tensor
    """(B, S) where in the table each kept state of each row is."""
    output: Tensor
    """(U, D) what the decoder makes of each."""
    log_likelihood: Tensor
    """(B, S) log p(x | z)."""
    log_prior: Tensor
    """(B, S) log p(z)."""
    model: "TVAE"
    """The model that decoded the states."""

    @property
    def states(self) -> Tensor:
        """(B, S, H), distinct in each row."""
        return self.table.dense(self.log_prior.dtype)[self.place]

    @cached_property
    def log_joint(self) -> Tensor:
        """(B, S) log p(x, z)."""
        return self.log_likelihood + self.log_prior

    @cached_property
    def weight(self) -> Tensor:
        """(B, S) q."""
        return self.log_joint.softmax(1)

    @property
    def code(self) -> Tensor:
        """(B, H) E_q[z]."""
        return self.table.mean(self.place, self.weight)

    @property
    def best(self) -> Tensor:
        """(B, H) the kept state of largest probability."""
        return self.states[torch.arange(len(self.place)), self.log_joint.argmax(1)]

    def expect(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Return E_q[f(z)], (B, ...), with f computed once for each distinct state.

        The mean that the model decodes is known already.
        """
        if f == self.model.decode:
            value = self.model.likelihood.mean(self.output)
        else:
            value = f(self.table.dense(self.weight.dtype)[:, None])[:, 0]
        flat = value.reshape(len(value), -1)
        mean = functional.embedding_bag(
            self.place, flat, per_sample_weights=self.weight, mode="sum"
        )
        return mean.reshape(len(mean), *value.shape[1:])

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """All kept states with q, or draws from them with equal weights."""
        if draws == 0 or noise is None:
            return self.states, self.weight
        ladder = self.weight.cumsum(1)
        drawn = torch.searchsorted(ladder, noise.uniform("state", draws) * ladder[:, -1:])
        place = self.place.gather(1, drawn.clamp_max(self.place.shape[1] - 1))
        return self.table.dense(ladder.dtype)[place], ladder.new_full(place.shape, 1 / draws)

    def log_ratio(self, z: Tensor) -> Tensor:
        """(B, S) log p(z) - log q(z) at kept states; minus infinity at any other."""
        same = (z[:, :, None] == self.states[:, None]).all(-1)
        ratio = self.log_prior - self.log_joint.log_softmax(1)
        return ratio[:, None].expand_as(same).masked_fill(~same, -torch.inf).amax(-1)


class FromBits(nn.Module):
    """A linear layer on states, its weights (H, K) stored by rows: a state adds up those of its
    active bits.
    """

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(latent, width)))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor | States) -> Tensor:
        """(..., H) -> (..., K)."""
        return (
            z @ self.weight + self.bias
            if isinstance(z, Tensor)
            else z.linear(self.weight, self.bias)
        )


class _KnownLinear(torch.autograd.Function):
    """A linear layer whose output is known, so that only the gradient has to be computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x, gradient.sum(0), None


known_linear: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _KnownLinear.apply


@register(TVAEModel)
class TVAE(nn.Module):
    """p(x, z) with binary latents."""

    pi: Tensor

    def __init__(self, config: TVAEModel, dims: int) -> None:
        super().__init__()
        self.config, self.dims = config, dims
        self.decoder = mlp(config.latent, config.hidden, dims, config.activation)
        self.decoder[0] = FromBits(config.latent, (*config.hidden, dims)[0])
        if config.output == "sigmoid":
            self.decoder.append(nn.Sigmoid())
        for layer in self.decoder:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        if config.linear:
            for layer in self.hidden:
                nn.init.eye_(layer.weight)
        self.likelihood = LIKELIHOODS[config.likelihood]()
        self.register_buffer("pi", torch.full((config.latent,), 1 / config.latent))

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Set sigma^2 to its first value: the configured one, or that of the data."""
        if isinstance(self.likelihood, Gaussian):
            given = self.config.variance
            self.likelihood.variance.fill_(_variance(blocks) if given is None else given)

    @property
    def hidden(self) -> list[Any]:
        """The layers before the one that makes observations."""
        return [layer for layer in self.decoder if isinstance(layer, nn.Linear | FromBits)][:-1]

    @property
    def code_size(self) -> int:
        """Bits of a state."""
        return self.config.latent

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """(B, 1, H) states drawn from the prior."""
        return (noise.uniform("state", 1, self.code_size) < self.pi).float()

    def output(self, z: Tensor | States) -> Tensor:
        """The likelihood's parameter."""
        output: Tensor = self.decoder(z)
        return output

    def decode(self, z: Tensor) -> Tensor:
        """E[x | z]."""
        return self.likelihood.mean(self.output(z))

    def log_prior(self, z: Tensor | States) -> Tensor:
        """(...) log p(z)."""
        odds = self.pi.logit(LEAST)
        rows, none = odds.unsqueeze(1), -functional.softplus(odds).sum(0, keepdim=True)
        return (z @ rows + none if isinstance(z, Tensor) else z.linear(rows, none)).squeeze(-1)

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """(B, S) log p(x | z) over what was observed."""
        density: Tensor = self.likelihood(batch.x, self.output(z), batch.mask)
        return density

    @torch.no_grad()
    def posterior(self, batch: Batch, words: Tensor) -> Truncated:
        """The posterior on these states (B, S, W), under the parameters of now: every distinct one
        decoded once.
        """
        distinct, place = tabulate(words)
        table = States(rounded(distinct), self.code_size)
        widest = max((*self.config.hidden, batch.x.shape[1]))
        together = max(1, CACHED // widest) if words.device.type == "cpu" else len(table)
        output = torch.cat([self.output(part) for part in table.split(together)])
        density = self.likelihood.pairs(batch.x, output, place, batch.mask)
        return Truncated(table, place, output, density, self.log_prior(table)[place], self)

    def score(self, batch: Batch, words: Tensor) -> Tensor:
        """(B, S) log p(x, z) of states (B, S, W)."""
        return self.posterior(batch, words).log_joint

    def bound(self, batch: Batch, q: Truncated, noise: Noise) -> Tensor:
        """(B,) log sum over the kept states of p(x, z)."""
        return q.log_joint.logsumexp(1)

    def objective(self, batch: Batch, q: Truncated, noise: Noise) -> Tensor:
        """(B,) the bound itself, whose gradient is that of the q-weighted log-likelihood.

        States that weigh less than the precision of numbers have no part in it; the others are
        followed once more.
        """
        bound = self.bound(batch, q, noise)
        if not torch.is_grad_enabled():
            return bound
        heavy, place, weight = heaviest(q.place, q.weight, len(q.table))
        some = rounded(heavy)
        output = self._followed(States(q.table.words[some], self.code_size), q.output[some])
        return self.likelihood.follow(bound, batch.x, output, place, weight, batch.mask)

    def _followed(self, states: States, output: Tensor) -> Tensor:
        """The known output of these states, with its gradient."""
        *inner, last = self.decoder
        if not isinstance(last, nn.Linear):
            return self.output(states)
        hidden: Tensor = nn.Sequential(*inner)(states)
        return known_linear(hidden, last.weight, last.bias, output)

    def at(self, step: float) -> None:
        """Let the hidden layers learn when the decoder was linear for as long as asked."""
        for layer in self.hidden:
            layer.requires_grad_(step >= self.config.linear)

    def statistics(self, batch: Batch, q: Truncated, noise: Noise) -> Sums:
        """What pi and sigma^2 need; and how many rows expect so many active latents."""
        code = q.code
        count = (
            code.sum(1).round().nan_to_num(0).long().clamp(0, self.code_size)
        )  # NaN, until a diverged run is refused
        sums = self.likelihood.statistics(batch.x, q.log_likelihood, q.weight, batch.mask)
        return {
            "active": code.sum(0),
            "counts": count.bincount(minlength=self.code_size + 1),
        } | sums

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return how many latents are active on average and in which rows, how many are dead, and
        sigma.
        """
        told = {"active": float(self.pi.sum())} | _deciles(total["counts"])
        told["dead"] = float((self.pi * rows < DEAD).sum())
        if isinstance(self.likelihood, Gaussian):
            told["sigma"] = float(self.likelihood.variance.sqrt())
        return told

    def maximise(self, total: Sums) -> None:
        """pi is the mean activity, sigma^2 the mean squared error."""
        self.pi.copy_(total["active"] / total["counts"].sum())
        self.likelihood.maximise(total)


def _deciles(counts: Tensor) -> dict[str, float]:
    """How many latents the sparsest tenth of the rows have active at most, half of them, and all
    but a tenth.
    """
    ladder = counts.cumsum(0)
    return {
        f"active_p{share}": float((100 * ladder < share * ladder[-1]).sum())
        for share in (10, 50, 90)
    }


def _variance(blocks: Iterable[Tensor]) -> float:
    """The mean over values, but those never seen, of their variance over rows; missing values are
    NaN and left out.
    """
    sums = [
        (b.isfinite().sum(0), b.double().nansum(0), b.double().square().nansum(0)) for b in blocks
    ]
    count, total, square = (torch.stack(part).sum(0) for part in zip(*sums, strict=True))
    return float((square / count - (total / count).square()).nanmean())
