"""How a model is trained and judged."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import Count, NonNegative, Positive, Processes, Whole

OfRecordings = Literal["pesq_wb", "pesq_nb", "pesq_nb_raw", "stoi", "estoi", "si_sdr", "isd"]
"""Measures of resynthesised recordings."""
OfModels = Literal[
    "effects", "iw_bound", "probe_linear", "probe_sgd", "probe_mlp", "mig", "dci", "sap"
]
"""Measures of a model on a split (`distvae/tasks/measures`)."""


@family("train")
@dataclass(frozen=True)
class Train:
    """Adam, its schedule, and when to stop."""

    kind: ClassVar[str] = "adam"
    epochs: Count = 30
    batch: Count = 128
    rate: Positive = 3e-3
    """Largest learning rate."""
    schedule: Literal["constant", "cosine", "cyclical"] = "cosine"
    warmup: Whole = 500
    """Steps over which the rate rises from zero."""
    cycle: Count = 20
    """Epochs of one cycle of the cyclical schedule, a triangle between rate_low and rate."""
    rate_low: NonNegative = 0.0
    """Smallest rate of the cosine and the cyclical schedule."""
    clip: Positive | None = None
    """Largest norm of a gradient of all parameters, nats; longer ones are shortened to it. null:
    none is.
    """
    local_steps: Whole = 0
    """Steps that each of several workers takes alone, on its part of a batch, before parameters are
    averaged.

    0: none, every step is taken together and the result is that of one worker. Otherwise it depends
    on their number.
    """
    patience: Count | None = None
    """Stop after so many epochs without a better validation objective; null never does."""
    seed: Whole = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Processes | None = 1
    """Threads of one process: small layers gain little from more, and lose much on a busy machine;
    null: torch's.
    """
    products: Literal["auto", "blas", "onednn"] = "auto"
    """Who multiplies matrices on the CPU: torch's BLAS (MKL on x86), oneDNN, or the one that suits
    the processor.
    """
    bits: Literal["same", "any"] = "same"
    """Whether a run goes on, and workers train together, only where they compute the same bits, or
    anywhere.
    """


@family("eval")
@dataclass(frozen=True)
class Eval:
    """How a trained model is judged."""

    kind: ClassVar[str] = "standard"
    latent: Literal["mean", "sample"] = "mean"
    """Resynthesise from the posterior mean (VSC: gamma * mu) or from a sample of the posterior."""
    metrics: tuple[Literal[OfRecordings, OfModels], ...] = (
        "pesq_wb",
        "pesq_nb",
        "pesq_nb_raw",
        "stoi",
        "estoi",
        "si_sdr",
        "isd",
    )
    """What is measured beside bound, error and sparsity; measures of recordings are left out where
    there are none.
    """
    importance: Annotated[int, Range(1, 100_000)] = 100
    """Draws of each data point for the importance-weighted bound."""
    codes: Literal["mean", "gated", "binary"] = "mean"
    """What probes and measures of factors look at: means; means times gate probabilities; the
    active values.
    """
    labels: Count = 5000
    """Training data points whose classes probes are told, at most."""
    processes: Processes | None = None
    """Processes that judge files side by side; null: as many as have enough to do, and at most one
    per core.
    """
