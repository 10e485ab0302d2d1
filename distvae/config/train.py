"""Settings of training and of evaluation."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import (
    Count,
    FrequencyScale,
    NonNegative,
    Positive,
    Processes,
    Whole,
    Widths,
)
from distvae.files.refusal import Refusal

RecordingMeasure = Literal["pesq_wb", "pesq_nb", "pesq_nb_raw", "stoi", "estoi", "si_sdr", "isd"]
"""Measures of resynthesised recordings."""
ModelMeasure = Literal[
    "effects", "iw_bound", "probe_linear", "probe_sgd", "probe_mlp", "mig", "dci", "sap"
]
"""Measures of a model on a split (`distvae/tasks/measures`)."""
SinkName = Literal["tensorboard"]
"""Programs beside MLflow that show the figures of runs."""
Scaling = Literal["none", "root", "linear"]
"""Ways in which learning rates grow with the batch."""


@family("train")
@dataclass(frozen=True)
class Train:
    """Training with Adam: its schedule, and when to stop."""

    kind: ClassVar[str] = "adam"
    epochs: Count = 30
    """Passes over the training rows."""
    batch: Count = 128
    """Rows of a step."""
    rate: Positive = 3e-3
    """Largest learning rate."""
    scale_rate: Scaling = "none"
    """`none` keeps the learning rates. `root` multiplies them by the square root of
    batch / base_batch, `linear` by batch / base_batch. The factor grows from 1 over the first
    epoch.
    """
    base_batch: Count | None = None
    """Batch that the rates and all warmups are meant for. With another batch, warmups take as many
    rows. null: `batch`, or the batch of the recipe where scale_rate is set.
    """
    schedule: Literal["constant", "cosine", "cyclical"] = "cosine"
    """Course of the learning rate, which begins at the first step, as the warmup does."""
    warmup: Whole = 500
    """Steps over which the learning rate rises from zero to that of the schedule."""
    cycle: Count = 20
    """Epochs of one cycle of the cyclical schedule, a triangle between rate_low and rate."""
    rate_low: NonNegative = 0.0
    """Smallest rate of the cosine and the cyclical schedule."""
    clip: Positive | None = None
    """Largest norm of the gradient of all parameters, in nats. Longer gradients are scaled down to
    it; null does not clip.
    """
    local_steps: Whole = 0
    """Steps that each worker takes alone, on its part of a batch, before parameters are averaged.

    With 0 all workers take every step together and the result equals that of one worker. Otherwise
    the result depends on the number of workers.
    """
    val_rows: Count | None = 65536
    """Largest number of rows that are scored after each epoch: a sample, fixed by the seed, of the
    validation rows, or of the training rows if a search keeps states for them. null scores all.
    """
    patience: Count | None = None
    """Stop after this many epochs without a better validation objective; null never stops early."""
    stop_at_noise: bool = False
    """Stop when the noise that a Gaussian TVAE finds, its sigma, falls 1 % below the white noise in
    the training rows, which their covariance shows. A model that explains more learns the noise
    itself. Has no effect where values are missing.
    """
    sigma: Positive | None = None
    """Standard deviation of the white noise in the data, in its units, where it is known: training
    stops once the model's sigma falls 1 % below it, whatever the training rows show. null: not
    known. Has no effect where values are missing.
    """
    seed: Whole = 0
    """Seed of the first weights, of the order of rows and of all noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU if there is one."""
    threads: Processes | None = 1
    """Threads of one process; null takes torch's default. Small layers gain little from more
    threads and lose much on a busy machine.
    """
    products: Literal["auto", "blas", "onednn"] = "auto"
    """Library for matrix products on the CPU: torch's BLAS (MKL on x86), oneDNN, or the one that
    suits the processor.
    """
    gradients: Literal["auto", "autograd"] = "auto"
    """`auto` uses hand-written gradients where there are some: of a TVAE, and of encoder models on
    a GPU. `autograd` never does.
    """
    graphs: bool = True
    """Record steps on a GPU as CUDA graphs and replay them, up to 64 with one launch instead of one
    for each operation. Not used with several workers.
    """
    tf32: bool = False
    """Let a GPU multiply in TF32, with 10 mantissa bits instead of 23: faster for layers of some
    hundred units, and less precise.
    """
    bits: Literal["same", "any"] = "same"
    """`same` refuses to resume a run on a machine that would compute other last digits than before,
    and workers that would differ from each other. `any` accepts the difference.
    """

    sinks: tuple[SinkName, ...] = ()
    """Programs beside MLflow for which a run writes its figures into its folder: `tensorboard`."""

    def __post_init__(self) -> None:
        """Refuse to scale rates from a batch that nobody named."""
        if self.scale_rate != "none" and self.base_batch is None:
            raise Refusal(
                f"train.base_batch: null with train.scale_rate = '{self.scale_rate}'; the batch"
                " that train.rate is meant for expected"
            )


@family("eval")
@dataclass(frozen=True)
class Eval:
    """Evaluation of a trained model."""

    kind: ClassVar[str] = "standard"
    latent: Literal["mean", "sample"] = "mean"
    """Resynthesise from the posterior mean (VSC: gamma * mu) or from a sample of the posterior."""
    recordings: Literal["trimmed", "whole"] = "trimmed"
    """`trimmed` scores recordings as training sees them, `whole` with the ends that `data.trim_db`
    cuts off.
    """
    metrics: tuple[Literal[RecordingMeasure, ModelMeasure], ...] = (
        "pesq_wb",
        "pesq_nb",
        "pesq_nb_raw",
        "stoi",
        "estoi",
        "si_sdr",
        "isd",
    )
    """Measures beside bound, error and sparsity. Measures of recordings are skipped for other data.
    """
    importance: Annotated[int, Range(1, 100_000)] = 100
    """Draws for each row in the importance-weighted bound."""
    codes: Literal["mean", "gated", "binary"] = "mean"
    """Codes that probes and measures of factors use. `mean`: the mean of the posterior (VSC: of its
    slabs). `gated`: that times the gate probabilities of VSC. `binary`: which latents are active.
    """
    frequencies: FrequencyScale = "linear"
    """The scale of frequencies in spectrograms."""
    labels: Count = 5000
    """Largest number of training rows whose classes probes may use."""
    probe_hidden: Widths = ()
    """Widths of the hidden layers of `probe_sgd`; an empty list makes it linear."""
    processes: Processes | None = None
    """Processes that score files in parallel; null starts as many as have enough to do, at most one
    per core.
    """
