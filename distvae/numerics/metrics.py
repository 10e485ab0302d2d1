"""The names of metrics, their groups and meanings; the metrics of codes that are cheap enough for
every epoch: sparsity, and the atoms in use; and how people read numbers, with just enough digits to
tell runs apart.
"""

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Group = Literal["quality", "sparsity", "bound", "time"]
SPREAD = "_std"
"""The suffix of the name of a standard deviation."""
_groups: dict[str, Group] = {}


def without_spreads(names: Collection[str]) -> list[str]:
    """Return the names of metrics, leaving out each `NAME_std` whose `NAME` is present."""
    spreads = {name + SPREAD for name in names}
    return [name for name in names if name not in spreads]


def declare(group: Group, *names: str) -> tuple[str, ...]:
    """Declare the group of some metrics where the metrics are computed, and return their names."""
    _groups.update(dict.fromkeys(names, group))
    return names


def group_of(name: str) -> Group | None:
    """Return the group of a metric, or None if no group was declared.

    A derived metric, such as `pesq_wb_std` or `snr_gain`, has the group of its base metric.
    """
    while name and name not in _groups:
        name = name.rpartition("_")[0]
    return _groups.get(name)


def groups_of(names: Iterable[str]) -> dict[str, Group]:
    """Return the groups of all metrics that have a group."""
    found = {name: group_of(name) for name in names}
    return {name: group for name, group in found.items() if group}


SPARSITY = declare("sparsity", "hoyer", "hoyer_scaled", "active", "effective_atoms", "live_atoms")
"""The names of these metrics."""
LIVE = 0.1
"""The share of the strongest column's root mean square above which a column is in use."""


def hoyer(code: "Tensor") -> "Tensor":
    """Return Hoyer's sparsity of each row, from 0 (all values equal) to 1 (a single value).

    The sparsity of a row of zeros is NaN. The sparsity of a code of width one is 0.
    """
    size = math.sqrt(code.shape[-1])
    return (size - effective_atoms(code).sqrt()) / ((size - 1) or 1)


def effective_atoms(code: "Tensor") -> "Tensor":
    """Return (l1 / l2)^2 of each row, which is n for a row with n equal non-zero values.

    The result for a row of zeros is NaN.
    """
    magnitudes = code.abs()
    # Scale by the largest value first, because the squares of tiny floats underflow to zero.
    relative = magnitudes / magnitudes.amax(-1, keepdim=True)
    return relative.sum(-1).square() / relative.square().sum(-1)


def live_atoms(code: "Tensor") -> "Tensor":
    """Return which columns of a code are in use.

    The root mean square of a collapsed column of a VAE is a few hundredths of the strongest
    column's, and nearly zero if the variance is learned. Zeros do not count: a sparse column may be
    rare and strong.
    """
    strength = (code.square().sum(0) / (code != 0).sum(0).clamp_min(1)).sqrt()
    return strength > LIVE * strength.max()


GLOSSARY = {
    "pesq_wb": (
        "perceptual quality of the resynthesis beside the original, wide band (P.862.2), 1 to "
        "4.64; larger is better"
    ),
    "pesq_nb": "perceptual quality in narrow band (P.862.1), 1 to 4.55; larger is better",
    "pesq_nb_raw": "the P.862 score behind pesq_nb; larger is better",
    "stoi": "short-time objective intelligibility, up to 1; larger is better",
    "estoi": "extended STOI, up to 1; larger is better",
    "si_sdr": "scale-invariant ratio of signal to distortion, in dB; larger is better",
    "isd": "Itakura-Saito divergence of the power spectra, from 0; smaller is better",
    "hoyer": (
        "Hoyer's sparsity of a code, from 0 (all values equal) to 1 (a single value); larger is "
        "sparser"
    ),
    "hoyer_active": (
        "hoyer of the frames within 30 dB of the loudest of their recording; larger is sparser"
    ),
    "hoyer_scaled": (
        "hoyer of the live values of a code, each divided by its root mean square; larger is "
        "sparser"
    ),
    "effective_atoms": (
        "number of equal values that would be spread as widely as those of a code; smaller is "
        "sparser"
    ),
    "live_atoms": (
        "values of the code whose root mean square, where they are not zero, is above a tenth of "
        "the strongest one's"
    ),
    "dead_atoms": "values of the code that are not live",
    "effective_effects": "number of values of a code that matter to the decoder's output",
    "bound": "lower bound of log p(x), nats per data point; larger is better",
    "squared_error": (
        "mean squared error of the reconstruction, in the units of the data; smaller is better"
    ),
    "objective": (
        "what training maximises, nats per data point: the bound, or a looser or weighted form of "
        "it; larger is better"
    ),
    "psnr": "peak signal-to-noise ratio of the restored picture, in dB; larger is better",
    "ssim": "structural similarity of the restored picture, up to 1; larger is better",
    "snr": "signal-to-noise ratio of the restored sound, in dB; larger is better",
    "snr_gain": "dB by which the restored sound has a better snr than the noisy one",
    "pesq_wb_gain": "by how much the restored sound has a better pesq_wb than the noisy one",
    "active": (
        "mean number of values of a code that are not zero (TVAE: of active latents, under the "
        "prior); smaller is sparser"
    ),
    "recovered": (
        "share of the true causes that are each the effect of a latent of its own; larger is better"
    ),
    "reliability": (
        "difference of the bound and the true log-likelihood, divided by the size of the latter; "
        "about 0 once the truth is learned, below it before"
    ),
    "true_log_likelihood": (
        "log p(x) under the parameters that made the data, nats per data point"
    ),
    "cosine": (
        "mean absolute cosine of the true atoms with the learned atoms that are matched to them; "
        "larger is better"
    ),
    "matched": "share of true atoms whose cosine is above 0.9; larger is better",
    "mcc": (
        "mean absolute correlation of the true coefficients with the matched values of the code, "
        "on validation rows; larger is better"
    ),
    "mcc_ood": "mcc on test rows, whose combinations of atoms are new; larger is better",
    "iw_bound": "importance-weighted bound of log p(x), nats per data point; larger is better",
    "seconds": "mean length of a recording, in seconds",
    "probe_linear": "accuracy of logistic regression on codes; larger is better",
    "probe_sgd": "accuracy of a linear layer on codes, by gradient descent; larger is better",
    "probe_relu": "probe_sgd with a ReLU before the cross-entropy, mean of ten; larger is better",
    "probe_mlp": "accuracy of a small net on codes; larger is better",
    "mig": "mutual information gap, 0 to 1; larger is better",
    "dci": "disentanglement of values by DCI, 0 to 1; larger is better",
    "dci_completeness": "completeness of factors by DCI; larger is better",
    "dci_informativeness": "accuracy of DCI's forests; larger is better",
    "sap": "separated attribute predictability; larger is better",
}
"""The definition of each metric in one sentence. docs/measures.md explains each metric in full."""


def meaning(name: str) -> str:
    """Return the definition of a metric, or '' if the metric is not known."""
    return GLOSSARY.get(name, "")


def decimals(value: float, digits: int = 4) -> int:
    """Return the number of decimals to print."""
    if value == 0:
        return digits
    return max(1, digits - 1 - math.floor(math.log10(abs(value))))


def shown(value: float, digits: int = 4) -> str:
    """Format a number: integers without decimals, fractions with some digits or one decimal.

    Very small and very large values are written as powers of ten.
    """
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return f"{value + 0.0:.0f}"  # turns minus zero into zero
    if 1e-3 <= abs(value) < 1e9:
        return f"{value:.{decimals(value, digits)}f}"
    return f"{value:.{digits}g}"


def brief(value: float) -> str:
    """Format a number that stands beside others of its kind, with three digits or one decimal."""
    return shown(value, 3)


def with_spread(mean: float, spread: float | None, digits: int = 4) -> str:
    """Format a mean and its standard deviation with the same decimals.

    A standard deviation that would round to zero gets one significant digit.
    """
    if spread is None:
        return shown(mean, digits)
    rounded = f"{spread:.{decimals(mean, digits)}f}"
    if spread and not float(rounded):
        rounded = f"{spread:.1g}"
    return f"{shown(mean, digits)} \N{PLUS-MINUS SIGN} {rounded}"


def setting(value: object) -> str:
    """Format the value of a setting."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def listed(words: list[str]) -> str:
    """Join words as in `one, two and three`."""
    if not words:
        return "none"
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"


def counted(count: int, noun: str) -> str:
    """Format a count as in `1 trial` and `2 trials`."""
    plural = "" if count == 1 else "s"
    return f"{count:,} {noun}{plural}"


def capitalise(text: str) -> str:
    """Capitalise the first letter."""
    return text[0].upper() + text[1:]
