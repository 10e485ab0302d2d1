"""p(x | z) per value of x, given what the decoder puts out."""

import math
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import repeat
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.compiled import kernels
from distvae.models.posteriors import LOG_VARIANCE
from distvae.numerics.array_types import Floats
from distvae.numerics.facts import Moments

LOG_TWO_PI = math.log(2 * math.pi)
LEAST_LOG_POWER, MOST_LOG_POWER = -40.0, 43.0
"""The range of the logarithm of the mean of a power. Single precision holds the largest squared."""
LEAST_RATIO = 1e-6
"""The least factor by which an update changes a variance."""
LEAST_VARIANCE = 1e-30
"""Single precision holds it, its reciprocal, and squares of errors divided by it."""
SQUARABLE = (-1e16, 1e16)
"""The values of which single precision holds the sum of many squares."""
COMPARED = 2**27
"""Values of outputs that are compared with rows at one time."""
Integers = NDArray[np.int64]


class Likelihood(nn.Module):
    """A factorised density whose parameter is the decoder's output."""

    learns = False
    """True if it has a closed-form update."""
    outputs = 1
    """Numbers that the decoder puts out for each value: all of one kind, then all of the next."""
    support = (-math.inf, math.inf)
    """The smallest and the largest value that has a density. Infinite values never have one."""

    @property
    def error_scale(self) -> float:
        """The derivative of a log-density by the output, divided by x minus its mean.

        It is the same for all values, or there is none.
        """
        return math.nan

    def log_density(self, x: Tensor, output: Tensor) -> Tensor:
        """Return log p(x_d | z), elementwise."""
        raise NotImplementedError

    def mean(self, output: Tensor) -> Tensor:
        """Return E[x | z]."""
        raise NotImplementedError

    def forward(self, x: Tensor, output: Tensor, mask: Tensor | None) -> Tensor:
        """Return log p(x | z), (B, S), over the observed values of x (B, D), given output (B, S,
        D).
        """
        density = self.log_density(x[:, None], output)
        return density.sum(-1) if mask is None else density.mul(mask[:, None]).sum(-1)

    def pairs(self, x: Tensor, output: Tensor, place: Tensor, mask: Tensor | None) -> Tensor:
        """Return log p(x | z), (B, S), where `output[place[b, s]]` is the output for row b's state
        s.
        """
        count = max(1, COMPARED // (place.shape[1] * output.shape[1]))
        masks = repeat(None) if mask is None else mask.split(count)
        parts = zip(x.split(count), place.split(count), masks, strict=False)
        return torch.cat([self(rows, output[states], seen) for rows, states, seen in parts])

    def table_densities(self, batch: Batch, output: Tensor, place: Integers) -> Floats:
        """Return log p(x | z), (B, S), as `pairs` does, by compiled loops.

        A place may be -1; the density there means nothing.
        """
        raise NotImplementedError

    def start(self, given: float | None, of_data: Callable[[], float]) -> None:
        """Set the first variance, if there is one: the given one, or that of the data."""

    def statistics(
        self, x: Tensor, log_likelihood: Tensor, weight: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the sums that the closed-form update needs, given weighted points (B, S)."""
        return {}

    def maximise(self, total: dict[str, Tensor]) -> None:
        """Update in closed form what the density itself learns."""


class ItakuraSaito(Likelihood):
    """Power spectra |c|^2 of circular complex Gaussian coefficients c with variance v =
    exp(output).

    The density is that of the power, exponential with mean v. That of the coefficients is log(pi)
    lower per value: 513 log(pi) = 587 nats for a frame of 513. Log variances are at least
    `LEAST_LOG_POWER`, because the density of a power of 0 has no bound.
    """

    support = (0.0, SQUARABLE[1])

    def log_density(self, x: Tensor, output: Tensor) -> Tensor:
        """Return -log v - x / v."""
        output = output.clamp(min=LEAST_LOG_POWER)
        return torch.addcmul(-output, x, output.neg().exp(), value=-1)

    def mean(self, output: Tensor) -> Tensor:
        """Return v."""
        return output.clamp(LEAST_LOG_POWER, MOST_LOG_POWER).exp()


class Bernoulli(Likelihood):
    """Values in [0, 1], read as probabilities of ones; the output is the logit."""

    support = (0.0, 1.0)

    @property
    def error_scale(self) -> float:
        """One: the derivative by the logit is the error."""
        return 1.0

    def log_density(self, x: Tensor, output: Tensor) -> Tensor:
        """Return x log p + (1 - x) log(1 - p)."""
        return x * output - functional.softplus(output)

    def mean(self, output: Tensor) -> Tensor:
        """Return p."""
        return output.sigmoid()

    def table_densities(self, batch: Batch, output: Tensor, place: Integers) -> Floats:
        """Return the densities, with log(1 - p) taken once for each state."""
        values = (batch.x.numpy(), observed_numbers(batch), output.numpy())
        log_none = -functional.softplus(output)
        loops = kernels(output)
        assert loops is not None
        found: Floats = loops.bernoulli_densities(*values, log_none.numpy(), place)
        return found


class Gaussian(Likelihood):
    """Values with one common variance, updated in closed form after each epoch."""

    support = SQUARABLE
    learns = True

    def __init__(self) -> None:
        super().__init__()
        self.variance: Tensor
        self.register_buffer("variance", torch.ones(()))

    def start(self, given: float | None, of_data: Callable[[], float]) -> None:
        """Set the first variance: the given one, or that of the data, which has to vary."""
        variance = of_data() if given is None else given
        if not variance > 0:
            raise Refusal(
                "model.variance: null, but no value of the data varies from row to row; a first"
                " variance above 0 expected"
            )
        if variance < LEAST_VARIANCE:
            raise Refusal(
                f"model.variance: null, and the variance of the data is {variance:g};"
                f" {LEAST_VARIANCE:g} or more expected: scale the columns"
            )
        self.variance.fill_(variance)

    @property
    def error_scale(self) -> float:
        """The reciprocal of the variance."""
        return 1 / float(self.variance)

    def log_density(self, x: Tensor, output: Tensor) -> Tensor:
        """Return log N(x; output, variance)."""
        return -0.5 * ((x - output).square() / self.variance + (2 * math.pi * self.variance).log())

    def mean(self, output: Tensor) -> Tensor:
        """Return the output itself."""
        return output

    def pairs(self, x: Tensor, output: Tensor, place: Tensor, mask: Tensor | None) -> Tensor:
        """Return densities from squared distances, exact even far from zero."""
        if not kernels(x):
            return super().pairs(x, output, place, mask)
        batch = Batch(x, place, mask)
        return torch.from_numpy(self.table_densities(batch, output.detach(), place.numpy()))

    def table_densities(self, batch: Batch, output: Tensor, place: Integers) -> Floats:
        """Return densities from squared distances."""
        values = (batch.x.numpy(), observed_numbers(batch), output.numpy())
        variance = float(self.variance)
        shift = -0.5 * math.log(2 * math.pi * variance)
        operands = (*values, place, -0.5 / variance, shift)
        loops = kernels(output)
        assert loops is not None
        found: Floats = loops.gaussian_densities(*operands)
        return found

    def statistics(
        self, x: Tensor, log_likelihood: Tensor, weight: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the expected log-likelihood, and the number of values that it is of."""
        values = x.new_full((), x.numel()) if mask is None else mask.sum()
        return {"density": (weight * log_likelihood).sum(), "values": values}

    def maximise(self, total: dict[str, Tensor]) -> None:
        """Set the variance to the mean squared error, by way of the log-likelihood.

        Where the error is less than a millionth of the variance, rounding hides it. The variance
        then becomes that millionth, and the next epoch finds what is left.
        """
        density = total["density"] / total["values"]
        ratio = -2 * density - (2 * math.pi * self.variance).log()
        self.variance.mul_(ratio.clamp(min=LEAST_RATIO)).clamp_(min=LEAST_VARIANCE)


class GaussianLearned(Likelihood):
    """Values with a mean and a variance each, both by the decoder (Kingma and Welling, appendix
    C.2). The output is the means and then the log variances, which are limited.
    """

    support = SQUARABLE
    outputs = 2

    def log_density(self, x: Tensor, output: Tensor) -> Tensor:
        """Return log N(x; mean, variance)."""
        mean, raw = output.chunk(2, -1)
        log_variance = raw.clamp(*LOG_VARIANCE)
        square = (x - mean).square() * log_variance.neg().exp()
        return -0.5 * (square + log_variance + LOG_TWO_PI)

    def mean(self, output: Tensor) -> Tensor:
        """Return the means."""
        return output.chunk(2, -1)[0]


def observed_numbers(batch: Batch) -> Floats:
    """Return 1 for each value (B, D) that was observed and 0 for others; no rows if all were."""
    if batch.mask is None:
        return _NO_ROWS[batch.x.dtype]
    return batch.mask.to(batch.x.dtype).numpy()


_NO_ROWS: dict[torch.dtype, Floats] = {
    torch.float32: np.empty((0, 0), np.float32),
    torch.float64: np.empty((0, 0), np.float64),
}

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "itakura_saito": ItakuraSaito,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "gaussian_learned": GaussianLearned,
}


def support_of(model: object) -> tuple[float, float]:
    """Return the smallest and the largest value that a model of this configuration explains.

    A configuration without a field `likelihood` sets no bounds.
    """
    likelihood = getattr(model, "likelihood", None)
    return LIKELIHOODS[likelihood].support if likelihood in LIKELIHOODS else Likelihood.support


def mean_variance(blocks: Iterable[Tensor]) -> float:
    """Return the mean over values of their variance over rows.

    Missing values, which are NaN, are left out.
    """
    moments = reduce(add, (Moments.of(block.numpy(force=True)) for block in blocks))
    return float(np.nanmean(moments.variance))
