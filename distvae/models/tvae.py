"""Truncated variational autoencoder (Guiraud, Drefs and Luecke; ICLR 2022 submission, ECML 2022).

    z_h ~ Bern(pi_h),    x | z ~ N(mu(z; W), sigma^2 I)  or  Bern(sigmoid(mu(z; W)))

There is no encoder. q(z | x_n) is the exact posterior restricted to S binary states that are kept
for the data point, and log sum_{z kept} p(x_n, z) is a lower bound of log p(x_n). W follows the
gradient of the bound, which is the q-weighted error; pi and sigma^2 have closed-form updates, once
per epoch. Without a hidden layer the model is binary sparse coding. A deep model can begin as
binary sparse coding: for the first `model.linear` steps its hidden layers are the identity, because
bits pass through a rectifier unchanged.
"""

import math
from collections.abc import Iterable, Mapping
from threading import get_ident
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.config import TVAEModel
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models import least_squares
from distvae.models.compiled import kernels
from distvae.models.horizon import next_horizon, weight_left_out
from distvae.models.likelihoods import LIKELIHOODS, Gaussian, mean_variance
from distvae.models.population import States, heaviest, padded, tabulate
from distvae.models.registry import register
from distvae.models.state_decoder import StateDecoder
from distvae.models.truncated import LEFT_OUT, Truncated, without_left_out
from distvae.numerics.facts import Facts
from distvae.numerics.metrics import declare
from distvae.numerics.noise import Noise
from distvae.numerics.rows import HeldRows

if TYPE_CHECKING:
    from distvae.models.table_decoder import TableDecoder

declare("sparsity", "active", "dead")
MIN_PI = 1e-5  # pi is clamped to [MIN_PI, 1 - MIN_PI] for its log-odds
MIN_ACTIVE_ROWS = 0.999  # a latent active in fewer rows is dead: in less than 1, up to rounding


@register(TVAEModel)
class TVAE(nn.Module):
    """A model p(x, z) with binary latents."""

    pi: Tensor
    horizon: Tensor
    """The truncation threshold in nats. A state takes part in training if its log-joint is at most
    this far below its row's best when the row is searched.
    """

    def __init__(self, config: TVAEModel, dims: int) -> None:
        super().__init__()
        self.config, self.dims = config, dims
        self.decoder = StateDecoder(config, dims)
        self.learn: tuple[bool, bool] | None = None
        """Whether the hidden layers learn, and whether the last layer learns by gradients."""
        self.likelihood = LIKELIHOODS[config.likelihood]()
        self.register_buffer("pi", torch.full((config.latent,), 1 / config.latent))
        horizon = math.inf if config.horizon is None else config.horizon
        self.register_buffer("horizon", torch.tensor(horizon, dtype=torch.float64))
        self._table_decoders: dict[int, TableDecoder] = {}

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Initialise sigma^2 to the configured variance, or to the variance of the data."""
        self.likelihood.start(self.config.variance, lambda: mean_variance(blocks))

    def prepare_from(self, facts: Facts) -> bool:
        """Initialise sigma^2 as `prepare` does, from the recorded variances of the data."""
        recorded = facts.values.variance
        self.likelihood.start(self.config.variance, lambda: float(np.nanmean(recorded)))
        return True

    @property
    def code_size(self) -> int:
        """The number of bits of a state."""
        return self.config.latent

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """Return states (B, 1, H) drawn from the prior."""
        return (noise.uniform("state", 1, self.code_size) < self.pi).float()

    def output(self, z: Tensor | States) -> Tensor:
        """Return the parameter of the likelihood."""
        output: Tensor = self.decoder(z)
        return output

    def decode(self, z: Tensor) -> Tensor:
        """Return E[x | z]."""
        return self.likelihood.mean(self.output(z))

    def log_odds(self) -> Tensor:
        """Return the log-odds (H,) of active bits under the prior."""
        return self.pi.logit(MIN_PI)

    def log_prior(self, z: Tensor | States) -> Tensor:
        """Return log p(z), (...)."""
        odds = self.log_odds()
        rows, none = odds.unsqueeze(1), -functional.softplus(odds).sum(0, keepdim=True)
        density = z @ rows + none if isinstance(z, Tensor) else z.linear(rows, none)
        return density.squeeze(-1)

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x | z), (B, S), over the observed values."""
        density: Tensor = self.likelihood(batch.x, self.output(z), batch.mask)
        return density

    def table_decoder(self) -> "TableDecoder | None":
        """Return this thread's compiled decoder of states, or None without numba or on a GPU."""
        if not kernels(self.pi):
            return None
        thread = get_ident()
        if thread not in self._table_decoders:
            from distvae.models.table_decoder import TableDecoder

            self._table_decoders[thread] = TableDecoder(self.decoder)
        return self._table_decoders[thread]

    @torch.no_grad()
    def posterior(self, batch: Batch, words: Tensor, part: Tensor | None = None) -> Truncated:
        """Return the posterior on the states of words (B, S, W), under the current parameters.

        States with part `LEFT_OUT` have no weight.
        """
        if part is not None:
            words = without_left_out(words, part)
        table, place, output, log_prior = self._decode_distinct(words)
        density = self.likelihood.pairs(batch.x, output, place, batch.mask)
        prior = log_prior[place]
        if part is not None:
            prior = prior.masked_fill(part == LEFT_OUT, -torch.inf)
        mean = self.likelihood.mean
        return Truncated(table, place, output, density, prior, self.decode, mean, part)

    def _decode_distinct(self, words: Tensor) -> tuple[States, Tensor, Tensor, Tensor]:
        """Return the table of distinct states of words (B, S, W), places (B, S) in the table, and
        the output and log p(z) of each state of the table.
        """
        if self.table_decoder() is None:
            distinct, place = tabulate(words)
            table = States(padded(distinct), self.code_size)
            return table, place, self.output(table), self.log_prior(table)
        from distvae.models.table_decoder import TableDecoder

        decoder = TableDecoder(self.decoder)  # not the shared one: the posterior keeps its memory
        decoded = decoder(words.contiguous().numpy())
        table = States(torch.from_numpy(decoded.words), self.code_size)
        prior = torch.from_numpy(decoder.log_prior(decoded, self))
        return table, torch.from_numpy(decoded.place), decoded.output, prior

    @property
    def completes(self) -> bool:
        """True if training imputes missing values with their expectations."""
        return self.config.missing == "completed"

    def _explained(self, batch: Batch, q: Truncated) -> Batch:
        """Return the batch, with missing values imputed if the model completes them."""
        if batch.mask is None or not self.completes:
            return batch
        return batch.completed(q.expect(self.decode))

    @torch.no_grad()
    def score(self, batch: Batch, words: Tensor) -> Tensor:
        """Return log p(x, z), (B, S), of the states of words (B, S, W)."""
        decoder = self.table_decoder()
        if decoder is None:
            return self.posterior(batch, words).log_joint
        table = decoder(words.numpy())
        density = self.likelihood.table_densities(batch, table.output, table.place)
        return torch.from_numpy(decoder.add_log_prior(table, self, density))

    def bound(self, batch: Batch, q: Truncated, noise: Noise) -> Tensor:
        """Return log sum p(x, z) over the kept states, (B,)."""
        return q.log_joint.logsumexp(1)

    def objective(self, batch: Batch, q: Truncated, noise: Noise) -> Tensor:
        """Return the bound, (B,), with the gradient of the q-weighted log-likelihood.

        The gradient leaves out states with a weight up to machine epsilon. With imputed values, the
        gradient includes the imputed values, but the bound includes only the observed values.
        """
        bound = self.bound(batch, q, noise)
        if not torch.is_grad_enabled():
            return bound
        heavy, place, weight = heaviest(q.place, q.weight, len(q.table))
        heavy = padded(heavy)
        states = States(q.table.words[heavy], self.code_size)
        output = self.decoder.with_gradient(states, q.output[heavy])
        x, _, mask, _ = self._explained(batch, q)
        density: Tensor = self.likelihood(x, output[place], mask)
        pull = (weight * density).sum(1)
        return bound + (pull - pull.detach())

    def at(self, step: float) -> None:
        """Keep the decoder linear for the first `model.linear` steps, then let all layers learn.

        In the linear phase the last layer has no gradient if it is fitted in closed form.
        """
        is_linear = step < (self.config.linear if self.config.hidden else math.inf)
        learn = not is_linear, not (is_linear and self.config.linear_fit == "closed_form")
        if learn != self.learn:
            self.learn = learn
            self.decoder.requires_grad_(learn[0])
            self.decoder.linear[-1].requires_grad_(learn[1])

    @property
    def fits_in_closed_form(self) -> bool:
        """True while the decoder is linear and is fitted in closed form, once per epoch."""
        return self.learn is not None and not self.learn[1]

    def statistics(self, batch: Batch, q: Truncated, noise: Noise) -> Sums:
        """Return the sums for pi and sigma^2, and a histogram of active latents per row."""
        code = q.code
        # In a diverged run NaN becomes an arbitrary integer here; the run is refused soon after.
        active = code.sum(1).round().long().clamp(0, self.code_size)
        explained, density = self._explained(batch, q), q.log_likelihood
        if explained is not batch:
            density = self.likelihood.pairs(explained.x, q.output, q.place, None)
        sums = self.likelihood.statistics(explained.x, density, q.weight, explained.mask)
        sums["active"] = code.sum(0)
        sums["sampled_weight"] = q.sampled_weight
        sums["counts"] = active.bincount(minlength=self.code_size + 1)
        if self.fits_in_closed_form:
            sums["moments"] = least_squares.moments(explained, q)
            sums["fitted_rows"] = batch.x.new_full((), len(batch.x), dtype=torch.float64)
        return sums

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return metrics of active latents, the number of dead latents, and sigma."""
        figures = {"active": float(self.pi.sum())} | _deciles(total["counts"])
        if "sampled_rows" in total:
            figures["left_out"] = weight_left_out(total)
        figures["dead"] = float((self.pi * rows < MIN_ACTIVE_ROWS).sum())
        if isinstance(self.likelihood, Gaussian):
            figures["sigma"] = float(self.likelihood.variance.sqrt())
        return figures

    def maximise(self, total: Sums) -> None:
        """Set pi to the mean activity, and sigma^2 to the mean squared error. First fit the weights
        if they have a closed form.
        """
        self.pi.copy_(total["active"] / total["counts"].sum())
        if isinstance(self.likelihood, Gaussian) and "moments" in total:
            total = least_squares.fit(self.decoder.linear[-1], self.likelihood.variance, total)
        self.likelihood.maximise(total)
        if "sampled_rows" in total:
            assert self.config.horizon is not None
            left_out = weight_left_out(total)
            self.horizon.copy_(next_horizon(self.horizon, left_out, self.config.horizon))

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> object:
        """Set parameters and buffers; runs of version 0.1.0 have no horizon."""
        return super().load_state_dict({"horizon": self.horizon, **state_dict}, strict, assign)


def _deciles(counts: Tensor) -> dict[str, float]:
    """Return the 10th, 50th and 90th percentile over rows of the number of active latents."""
    ladder = counts.cumsum(0)
    percentiles = {}
    for share in (10, 50, 90):
        percentiles[f"active_p{share}"] = float((100 * ladder < share * ladder[-1]).sum())
    return percentiles
