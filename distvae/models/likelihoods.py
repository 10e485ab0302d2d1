"""p(x | z) for each value of x, given the decoder's output."""

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
from distvae.models.posteriors import LOG_VARIANCE, log_normal
from distvae.numerics.arrays import Floats, Moments

LEAST_LOG_POWER, MOST_LOG_POWER = -40.0, 43.0
"""The range of the log of a mean power. Single precision holds the square of the largest power."""
LEAST_RATIO = 1e-6
"""The smallest factor by which one update changes a variance."""
LEAST_VARIANCE = 1e-30
"""The smallest variance, chosen so that squared errors divided by it fit in single precision."""
SQUARABLE = (-1e16, 1e16)
"""The range of values for which a sum of many squares fits in single precision."""
COMPARED = 2**27
"""The number of output values that are compared with rows at a time."""
Integers = NDArray[np.int64]


class Likelihood(nn.Module):
    """A factorised density whose parameter is the decoder's output."""

    learns = False
    """True if the likelihood has parameters with a closed-form update."""
    outputs = 1
    """Decoder outputs per value. The first parameter of all values comes before the second."""
    support = (-math.inf, math.inf)
    """The smallest and the largest value that has a density. Infinite values never have one."""

    @property
    def error_scale(self) -> float:
        """The constant c with d log p / d output = c (x - mean), or NaN if there is no such c."""
        return math.nan

    def log_density(self, x: Tensor, output: Tensor) -> Tensor:
        """Return log p(x_d | z), elementwise."""
        raise NotImplementedError

    def mean(self, output: Tensor) -> Tensor:
        """Return E[x | z]."""
        raise NotImplementedError

    def forward(self, x: Tensor, output: Tensor, mask: Tensor | None) -> Tensor:
        """Return log p(x | z), (B, S), over observed values of x (B, D), given output (B, S, D)."""
        density = self.log_density(x[:, None], output)
        return density.sum(-1) if mask is None else density.mul(mask[:, None]).sum(-1)

    def pairs(self, x: Tensor, output: Tensor, place: Tensor, mask: Tensor | None) -> Tensor:
        """Return log p(x | z), (B, S). `output[place[b, s]]` is the output for state s of row b."""
        count = max(1, COMPARED // (place.shape[1] * output.shape[1]))
        masks = repeat(None) if mask is None else mask.split(count)
        parts = zip(x.split(count), place.split(count), masks, strict=False)
        return torch.cat([self(rows, output[states], seen) for rows, states, seen in parts])

    def table_densities(self, batch: Batch, output: Tensor, place: Integers) -> Floats:
        """Return log p(x | z), (B, S), as `pairs` does, by compiled loops.

        Where a place is -1, the density is undefined.
        """
        raise NotImplementedError

    def start(self, given: float | None, of_data: Callable[[], float]) -> None:
        """Set the initial variance to `given`, or to the variance of the data. Without a variance
        do nothing.
        """

    def statistics(
        self, x: Tensor, log_likelihood: Tensor, weight: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the sums that the closed-form update needs, given weighted points (B, S)."""
        return {}

    def maximise(self, total: dict[str, Tensor]) -> None:
        """Update the parameters of the density in closed form."""


class ItakuraSaito(Likelihood):
    """Power spectra |c|^2 of circular complex Gaussian coefficients c with variance v =
    exp(output).

    This is the density of the power, which is exponential with mean v. The log-density of the
    coefficients is lower by log(pi) per value: by 587 nats for a frame of 513 values. Log variances
    are at least `LEAST_LOG_POWER`, because the density of a power of 0 is unbounded.
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
    """Values in [0, 1], treated as probabilities of a one; the output is the logit."""

    support = (0.0, 1.0)

    @property
    def error_scale(self) -> float:
        """1, because the derivative by the logit is x minus the mean."""
        return 1.0

    def log_density(self, x: Tensor, output: Tensor) -> Tensor:
        """Return x log p + (1 - x) log(1 - p)."""
        return x * output - functional.softplus(output)

    def mean(self, output: Tensor) -> Tensor:
        """Return p."""
        return output.sigmoid()

    def table_densities(self, batch: Batch, output: Tensor, place: Integers) -> Floats:
        """Return log-densities, computing log(1 - p) once per distinct state."""
        from distvae.models import kernels

        values = (batch.x.numpy(), observed_numbers(batch), output.numpy())
        log_none = -functional.softplus(output)
        found: Floats = kernels.bernoulli_densities(*values, log_none.numpy(), place)
        return found


class Gaussian(Likelihood):
    """Gaussian values with one shared variance, updated in closed form after each epoch."""

    support = SQUARABLE
    learns = True

    def __init__(self) -> None:
        super().__init__()
        self.variance: Tensor
        self.register_buffer("variance", torch.ones(()))

    def start(self, given: float | None, of_data: Callable[[], float]) -> None:
        """Set the initial variance to `given`, or to the variance of the data, which must be
        positive.
        """
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
        """Return log-densities from squared distances, exact even far from zero."""
        if x.device.type != "cpu":
            return super().pairs(x, output, place, mask)
        batch = Batch(x, place, mask)
        return torch.from_numpy(self.table_densities(batch, output.detach(), place.numpy()))

    def table_densities(self, batch: Batch, output: Tensor, place: Integers) -> Floats:
        """Return log-densities from squared distances."""
        from distvae.models import kernels

        values = (batch.x.numpy(), observed_numbers(batch), output.numpy())
        variance = float(self.variance)
        shift = -0.5 * math.log(2 * math.pi * variance)
        found: Floats = kernels.gaussian_densities(*values, place, -0.5 / variance, shift)
        return found

    def statistics(
        self, x: Tensor, log_likelihood: Tensor, weight: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the expected log-likelihood, and the number of observed values."""
        values = x.new_full((), x.numel()) if mask is None else mask.sum()
        return {"density": (weight * log_likelihood).sum(), "values": values}

    def maximise(self, total: dict[str, Tensor]) -> None:
        """Set the variance to the mean squared error, derived from the log-likelihood.

        Rounding hides an error below a millionth of the variance. The variance then falls to a
        millionth, and the next epoch resolves the rest.
        """
        density = total["density"] / total["values"]
        ratio = -2 * density - (2 * math.pi * self.variance).log()
        self.variance.mul_(ratio.clamp(min=LEAST_RATIO)).clamp_(min=LEAST_VARIANCE)


class GaussianLearned(Likelihood):
    """Gaussian values whose means and variances both come from the decoder (Kingma and Welling,
    appendix C.2). The output has the means first, then the log variances, which are clamped.
    """

    support = SQUARABLE
    outputs = 2

    def log_density(self, x: Tensor, output: Tensor) -> Tensor:
        """Return log N(x; mean, variance)."""
        mean, raw = output.chunk(2, -1)
        return log_normal(x, mean, raw.clamp(*LOG_VARIANCE))

    def mean(self, output: Tensor) -> Tensor:
        """Return the means."""
        return output.chunk(2, -1)[0]


def observed_numbers(batch: Batch) -> Floats:
    """Return (B, D) 1 for observed and 0 for missing values, or no rows if nothing is missing."""
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
    """Return the smallest and the largest value that have a density under a model configuration.

    A configuration without a field `likelihood` sets no limits.
    """
    if getattr(model, "likelihood", None) == "log_normal":
        return ItakuraSaito.support
    likelihood = getattr(model, "likelihood", None)
    return LIKELIHOODS[likelihood].support if likelihood in LIKELIHOODS else Likelihood.support


def mean_variance(blocks: Iterable[Tensor]) -> float:
    """Return the variance over rows, averaged over columns, ignoring missing values (NaN)."""
    moments = reduce(add, (Moments.of(block.numpy(force=True)) for block in blocks))
    return float(np.nanmean(moments.variance))
