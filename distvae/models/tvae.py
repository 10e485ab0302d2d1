"""Truncated variational autoencoder (Guiraud, Drefs and Luecke; ICLR 2022 submission, ECML 2022).

    z_h ~ Bern(pi_h),    x | z ~ N(mu(z; W), sigma^2 I)  or  Bern(sigmoid(mu(z; W)))

There is no encoder: q(z | x_n) is the exact posterior restricted to a set of S binary states kept
for the data point, and log sum_{z kept} p(x_n, z) bounds log p(x_n). W ascends that sum by its
gradient, the q-weighted error; pi and sigma^2 have closed forms, taken once per epoch. With no
hidden layer the model is binary sparse coding. A deep one may begin as that: `model.linear` has its
hidden layers be the identity, which bits pass through a rectifier unchanged.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.config import TVAEModel
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.likelihoods import LIKELIHOODS, Gaussian
from distvae.models.population import States, heaviest, padded, tabulate
from distvae.models.registry import register
from distvae.models.state_decoder import StateDecoder
from distvae.models.truncated import Truncated
from distvae.numerics.lanes import HeldRows
from distvae.numerics.noise import Noise

MIN_PI = 1e-5  # the probability, at least, that a latent is active, or that it is not
MIN_ACTIVE_ROWS = 1.0  # rows of an epoch in which a latent that is not dead is active


@register(TVAEModel)
class TVAE(nn.Module):
    """A model p(x, z) with binary latents."""

    pi: Tensor

    def __init__(self, config: TVAEModel, dims: int) -> None:
        super().__init__()
        self.config, self.dims = config, dims
        self.decoder = StateDecoder(config, dims)
        self.likelihood = LIKELIHOODS[config.likelihood]()
        self.register_buffer("pi", torch.full((config.latent,), 1 / config.latent))

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Set sigma^2 to its first value: the configured one, or that of the data."""
        if isinstance(self.likelihood, Gaussian):
            given = self.config.variance
            self.likelihood.variance.fill_(_variance(blocks) if given is None else given)

    @property
    def code_size(self) -> int:
        """The number of bits of a state."""
        return self.config.latent

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """Return states (B, 1, H) drawn from the prior."""
        return (noise.uniform("state", 1, self.code_size) < self.pi).float()

    def output(self, z: Tensor | States) -> Tensor:
        """Return the likelihood's parameter."""
        output: Tensor = self.decoder(z)
        return output

    def decode(self, z: Tensor) -> Tensor:
        """Return E[x | z]."""
        return self.likelihood.mean(self.output(z))

    def log_prior(self, z: Tensor | States) -> Tensor:
        """Return log p(z), (...)."""
        odds = self.pi.logit(MIN_PI)
        rows, none = odds.unsqueeze(1), -functional.softplus(odds).sum(0, keepdim=True)
        density = z @ rows + none if isinstance(z, Tensor) else z.linear(rows, none)
        return density.squeeze(-1)

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x | z), (B, S), over the values that were observed."""
        density: Tensor = self.likelihood(batch.x, self.output(z), batch.mask)
        return density

    @torch.no_grad()
    def posterior(self, batch: Batch, words: Tensor) -> Truncated:
        """Return the posterior on the states of words (B, S, W), under the present parameters."""
        distinct, place = tabulate(words)
        table = States(padded(distinct), self.code_size)
        output = self.decoder.decode_table(table)
        density = self.likelihood.pairs(batch.x, output, place, batch.mask)
        prior = self.log_prior(table)[place]
        return Truncated(table, place, output, density, prior, self.decode, self.likelihood.mean)

    def score(self, batch: Batch, words: Tensor) -> Tensor:
        """Return log p(x, z), (B, S), of the states of words (B, S, W)."""
        return self.posterior(batch, words).log_joint

    def bound(self, batch: Batch, q: Truncated, noise: Noise) -> Tensor:
        """Return the logarithm of the sum of p(x, z) over the kept states, (B,)."""
        return q.log_joint.logsumexp(1)

    def objective(self, batch: Batch, q: Truncated, noise: Noise) -> Tensor:
        """Return the bound, (B,), with the gradient of the q-weighted log-likelihood.

        The gradient leaves out states whose weight is below the precision of numbers.
        """
        bound = self.bound(batch, q, noise)
        if not torch.is_grad_enabled():
            return bound
        heavy, place, weight = heaviest(q.place, q.weight, len(q.table))
        heavy = padded(heavy)
        states = States(q.table.words[heavy], self.code_size)
        output = self.decoder.with_gradient(states, q.output[heavy])
        return self.likelihood.with_gradient(bound, batch.x, output, place, weight, batch.mask)

    def at(self, step: float) -> None:
        """Let the hidden layers learn once the decoder was linear for the configured steps."""
        for layer in self.decoder.hidden:
            layer.requires_grad_(step >= self.config.linear)

    def statistics(self, batch: Batch, q: Truncated, noise: Noise) -> Sums:
        """Return the sums for pi and sigma^2, and the number of rows by their active latents."""
        code = q.code
        # A diverged run has NaN here until it is refused.
        active = code.sum(1).round().nan_to_num(0).long().clamp(0, self.code_size)
        sums = self.likelihood.statistics(batch.x, q.log_likelihood, q.weight, batch.mask)
        sums["active"] = code.sum(0)
        sums["counts"] = active.bincount(minlength=self.code_size + 1)
        return sums

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return the mean and the deciles of active latents, the number of dead ones, and sigma."""
        figures = {"active": float(self.pi.sum())} | _deciles(total["counts"])
        figures["dead"] = float((self.pi * rows < MIN_ACTIVE_ROWS).sum())
        if isinstance(self.likelihood, Gaussian):
            figures["sigma"] = float(self.likelihood.variance.sqrt())
        return figures

    def maximise(self, total: Sums) -> None:
        """Set pi to the mean activity, and sigma^2 to the mean squared error."""
        self.pi.copy_(total["active"] / total["counts"].sum())
        self.likelihood.maximise(total)


def _deciles(counts: Tensor) -> dict[str, float]:
    """Return the 10th, 50th and 90th percentile over rows of the number of active latents."""
    ladder = counts.cumsum(0)
    percentiles = {}
    for share in (10, 50, 90):
        percentiles[f"active_p{share}"] = float((100 * ladder < share * ladder[-1]).sum())
    return percentiles


def _variance(blocks: Iterable[Tensor]) -> float:
    """Return the mean over values of their variance over rows.

    Missing values, which are NaN, are left out.
    """
    counts, totals, squares = [], [], []
    for block in blocks:
        counts.append(block.isfinite().sum(0))
        totals.append(block.double().nansum(0))
        squares.append(block.double().square().nansum(0))
    count, total, square = (torch.stack(sums).sum(0) for sums in (counts, totals, squares))
    return float((square / count - (total / count).square()).nanmean())
