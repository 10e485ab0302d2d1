"""Truncated variational autoencoder (Guiraud, Drefs and Luecke; ICLR 2022 submission, ECML 2022).

    z_h ~ Bern(pi_h),    x | z ~ N(mu(z; W), sigma^2 I)  or  Bern(sigmoid(mu(z; W)))

There is no encoder. q(z | x_n) is the exact posterior restricted to S binary states that are kept
for the data point, and log sum_{z kept} p(x_n, z) is a lower bound of log p(x_n). W follows the
gradient of the bound, which is the q-weighted error; pi and sigma^2 have closed-form updates, once
per epoch. Without a hidden layer the model is binary sparse coding. A deep model can begin as
binary sparse coding: for the first `model.linear` steps its hidden layers are the identity, because
bits pass through a rectifier unchanged.

A linear decoder can be fitted in closed form. Given the posteriors of all rows, the expected
log-likelihood is highest where sum E[u (x - V u)^T] = 0, with u = (z, 1) and V = (W, b). The change
of V therefore solves (sum E[u u^T]) change^T = sum E[u (x - V u)^T].

`objective` is differentiated by autograd, also for a subclass with another objective. Training
otherwise uses a faster engine (`engines/tvae_cpu.py`, `engines/tvae_gpu.py`); the tests compare
both.
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
from distvae.files.refusal import Refusal
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.likelihoods import LIKELIHOODS, Gaussian, mean_variance
from distvae.models.nets import FromBits, StateDecoder
from distvae.models.population import LEFT_OUT, list_states, log_odds, unpack
from distvae.models.truncated import Truncated, without_left_out
from distvae.numerics.arrays import Facts
from distvae.numerics.metrics import declare
from distvae.numerics.noise import Noise
from distvae.numerics.rows import HeldRows

if TYPE_CHECKING:
    from distvae.models.table_decoder import TableDecoder

declare("sparsity", "active", "dead")
MIN_ACTIVE_ROWS = 0.999  # a latent active in fewer rows is dead: in less than 1, up to rounding
MAX_LEFT_OUT = 1e-5
"""The posterior weight per row that training may leave out, on average."""
WIDER = 1.5
"""The factor by which the horizon grows when training leaves out more weight."""
RANK = 1e-7  # smallest relative eigenvalue of sum E[u u^T] that single precision can resolve


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

    def output(self, z: Tensor) -> Tensor:
        """Return the parameter of the likelihood."""
        output: Tensor = self.decoder(z)
        return output

    def decode(self, z: Tensor) -> Tensor:
        """Return E[x | z]."""
        return self.likelihood.mean(self.output(z))

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z), (...)."""
        odds = log_odds(self.pi)
        rows, none = odds.unsqueeze(1), -functional.softplus(odds).sum(0, keepdim=True)
        return (z @ rows + none).squeeze(-1)

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x | z), (B, S), over the observed values."""
        density: Tensor = self.likelihood(batch.x, self.output(z), batch.mask)
        return density

    def table_decoder(self) -> "TableDecoder":
        """Return this thread's compiled decoder of states, which needs a model on the CPU."""
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
        table, place, output, log_prior = self._decode_states(words)
        density = self.likelihood.pairs(batch.x, output, place, batch.mask)
        prior = log_prior[place]
        if part is not None:
            prior = prior.masked_fill(part == LEFT_OUT, -torch.inf)
        states = (table, self.code_size, place, output)
        return Truncated(*states, density, prior, self.decode, self.likelihood.mean, part)

    def _decode_states(self, words: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a table (U, W) of the states of words (B, S, W), places (B, S) in the table, and
        the output and log p(z) of each state of the table.
        """
        if self.pi.device.type != "cpu":
            table, place = list_states(words)
            bits = unpack(table, self.code_size, self.pi.dtype)
            return table, place, self.output(bits), self.log_prior(bits)
        from distvae.models.table_decoder import TableDecoder

        decoder = TableDecoder(self.decoder)  # not the shared one: the posterior keeps its memory
        decoded = decoder(words.contiguous().numpy())
        prior = decoder.log_prior(decoded, self.pi)
        return (
            torch.from_numpy(decoded.words),
            torch.from_numpy(decoded.place),
            decoded.output,
            torch.from_numpy(prior),
        )

    @property
    def completes(self) -> bool:
        """True if training imputes missing values with their expectations."""
        return self.config.missing == "completed"

    def ranks(self, may_be_missing: bool) -> bool:
        """Return whether a larger objective means a better epoch: not if values are imputed."""
        return not (may_be_missing and self.completes)

    def _explained(self, batch: Batch, q: Truncated) -> Batch:
        """Return the batch, with missing values imputed if the model completes them."""
        if batch.mask is None or not self.completes:
            return batch
        return batch.completed(q.expect(self.decode))

    @torch.no_grad()
    def score(self, batch: Batch, words: Tensor) -> Tensor:
        """Return log p(x, z), (B, S), of the states of words (B, S, W)."""
        if self.pi.device.type != "cpu":
            return self.posterior(batch, words).log_joint
        decoder = self.table_decoder()
        table = decoder(words.numpy())
        density = self.likelihood.table_densities(batch, table.output, table.place)
        density += decoder.log_prior(table, self.pi)[table.place]
        return torch.from_numpy(density)

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
        weight = functional.threshold(q.weight, torch.finfo(q.weight.dtype).eps, 0.0)
        x, _, mask, _ = self._explained(batch, q)
        density: Tensor = self.likelihood(x, self.output(q.table)[q.place], mask)
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
            sums["moments"] = moments(explained, q)
            sums["fitted_rows"] = batch.x.new_full((), len(batch.x), dtype=torch.float64)
        return sums

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return metrics of active latents, the number of dead latents, and sigma.

        `active_p10` is the 10th percentile over rows of the number of active latents.
        """
        figures, ladder = {"active": float(self.pi.sum())}, total["counts"].cumsum(0)
        for share in (10, 50, 90):
            figures[f"active_p{share}"] = float((100 * ladder < share * ladder[-1]).sum())
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
        if "moments" in total:
            total = self._fit_weights(total)
        self.likelihood.maximise(total)
        if "sampled_rows" in total:
            assert self.config.horizon is not None
            left_out = weight_left_out(total)
            self.horizon.copy_(next_horizon(self.horizon, left_out, self.config.horizon))

    @torch.no_grad()
    def _fit_weights(self, total: Sums) -> Sums:
        """Set the weights and the bias of the last layer to the least-squares solution.

        Return the sums of the epoch with the log-likelihood under the new weights. Do nothing if
        the moments do not cover all rows. Weights that the moments do not determine, for example
        for bits that were never active, keep their values.
        """
        assert isinstance(self.likelihood, Gaussian)
        size, layer = len(total["moments"]), self.decoder.linear[-1]
        second, errors = total["moments"].tensor_split([size], 1)
        if total["counts"].sum() != total["fitted_rows"]:
            return total
        change = torch.linalg.pinv(second, rtol=RANK, hermitian=True) @ errors
        layer.weight.add_(change[:-1] if isinstance(layer, FromBits) else change[:-1].T)
        layer.bias.add_(change[-1])
        gain = 0.5 * (change * errors).sum() / self.likelihood.variance
        return total | {"density": total["density"] + gain}

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> object:
        """Set parameters and buffers; runs of version 0.1.0 have no horizon."""
        return super().load_state_dict({"horizon": self.horizon, **state_dict}, strict, assign)


def weight_left_out(total: Sums) -> float:
    """Return the mean posterior weight of the left-out states, measured on sampled rows."""
    return float(total["sampled_weight"] / total["sampled_rows"].clamp(min=1))


def next_horizon(horizon: Tensor, left_out: float, least: float) -> Tensor:
    """Return the horizon of the next epoch, given the weight left out in this epoch.

    The horizon widens if the weight exceeds `MAX_LEFT_OUT`. It narrows, down to `least`, if a
    narrower horizon would still keep enough weight: weights fall as exp(-gap).
    """
    if left_out > MAX_LEFT_OUT:
        return horizon * WIDER
    narrower = (horizon / WIDER).clamp(min=least)
    if left_out * float((horizon - narrower).exp()) < MAX_LEFT_OUT:
        return narrower
    return horizon


def refuse_masked(batch: Batch) -> None:
    """Refuse rows with missing values: each column would need its own sum E[u u^T]."""
    if batch.mask is not None:
        raise Refusal(
            "model.linear_fit: 'closed_form' with missing values that are left out; gradient, or"
            " model.missing = 'completed', expected"
        )


def moments(batch: Batch, q: Truncated) -> Tensor:
    """Return (H + 1, H + 1 + D): sum E[u u^T] and sum E[u (x - V u)^T], concatenated, with
    u = (z, 1) and V = (W, b).
    """
    refuse_masked(batch)
    table = q.table
    weight = q.weight.new_zeros(len(q.place), len(table)).scatter_add_(1, q.place, q.weight)
    states = functional.pad(table, (0, 1), value=1.0)
    mass = weight.sum(0).unsqueeze(1)
    errors = weight.T @ batch.x - mass * q.output
    return states.T @ torch.cat([mass * states, errors], 1)
