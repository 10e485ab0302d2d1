"""Names and decimals of the figures in a table of results, and Markdown tables of them."""

from collections.abc import Sequence
from statistics import fmean

from distvae.report.results.rows import RowGroup

FIGURES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "snr": "SNR",
    "snr_gain": "SNR gain",
    "pesq_wb_gain": "PESQ wb gain",
    "val_bound": "validation bound",
    "val_objective": "validation objective",
    "processor_s": "processor s",
    "pesq_wb": "PESQ wb",
    "pesq_nb_raw": "PESQ raw nb",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "si_sdr": "SI-SDR",
    "isd": "IS div.",
    "hoyer": "Hoyer",
    "hoyer_active": "Hoyer, active",
    "effective_atoms": "eff. atoms",
    "effective_effects": "eff. effects",
    "live_atoms": "live",
    "objective": "objective",
    "probe_sgd": "probe, SGD",
    "probe_linear": "probe, linear",
    "active": "active",
    "recovered": "recovered",
    "reliability": "reliability",
    "sigma": "sigma",
    "ratio": "step / products",
    "step_us": "step, us",
    "autograd_us": "by autograd, us",
    "products_us": "products, us",
    "adam_us": "Adam, us",
    "share": "products and Adam / step",
    "reused_per_hour": "trials/h, kept processes",
    "nested_per_hour": "trials/h, Ray Train each",
    "times": "times as many",
    "stacked_per_hour": "trials/h, stacks",
    "stacked_nested": "times as many as Ray Train",
    "alone_us": "step alone, us",
    "stacked_us": "step stacked, us",
    "stacked_times": "times as fast stacked",
    "peer_s": "other program, s",
    "ours_s": "ours, s",
    "speedup": "times as fast, median",
    "speedup_min": "minimum",
    "speedup_max": "maximum",
    "plain_s": "one process, s",
    "apart_gain": "two apart, times",
    "torchrun_gain": "two by torchrun",
    "ray1_gain": "one under Ray",
    "ray2_gain": "two under Ray",
    "alone_s": "one process, s",
    "sum_gain": "two machines, a sum at each step",
    "x16_gain": "batch x 16",
    "local_64_gain": "an average every 64 steps",
    "random": "random search",
    "population": "population",
    "gain": "better by",
    "better": "seeds for which it is better",
    "gflops": "GFLOP/s",
}
"""The figures that a page shows, in the order of its columns; the CSV has all of them."""
DECIMALS = {"psnr": 2, "snr": 2, "snr_gain": 2, "pesq_wb_gain": 2, "ssim": 3}


def decimals(mean: float, figure: str = "") -> int:
    """Return how many decimals a mean is shown with."""
    if figure in DECIMALS:
        return DECIMALS[figure]
    if abs(mean) >= 20:
        return 1
    return 2 if abs(mean) >= 2 else 3


def half_range(values: Sequence[float]) -> float:
    """Return half the distance between the largest and the smallest value."""
    return (max(values) - min(values)) / 2


def with_half_range(values: Sequence[float], places: int | None = None, figure: str = "") -> str:
    """Return the mean of the values and half their range, '-' if there are none."""
    if not values:
        return "-"
    mean, half = fmean(values), half_range(values)
    if places is None:
        places = decimals(mean, figure)
    text = f"{mean:.{places}f}"
    return f"{text} ± {half:.{places}f}" if half and places else text


def signed(difference: float, figure: str) -> str:
    """Return a difference with its sign."""
    return f"{difference:+z.{DECIMALS.get(figure, 2)}f}"


def published_text(value: float, spread: float) -> str:
    """Return a published figure as it was published, with its standard deviation if known."""
    return f"{value:g} ± {spread:g}" if spread else f"{value:g}"


def difference(group: RowGroup, figure: str) -> float | None:
    """Return the mean over seeds minus the published value, where both are known."""
    published, values = group.published(figure), group.values(figure)
    if published is None or not values:
        return None
    return fmean(values) - published
