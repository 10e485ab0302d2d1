"""Settings of training and of evaluation."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.config.schema import (
    Count,
    FrequencyScale,
    NonNegative,
    Positive,
    Processes,
    Range,
    Whole,
    Widths,
    family,
)
from distvae.files.refusal import Refusal

RecordingMeasure = Literal["pesq_wb", "pesq_nb", "pesq_nb_raw", "stoi", "estoi", "si_sdr", "isd"]
"""Measures of resynthesised recordings."""
ModelMeasure = Literal[
    "effects",
    "iw_bound",
    "probe_linear",
    "probe_sgd",
    "probe_relu",
    "probe_mlp",
    "mig",
    "dci",
    "sap",
]
"""Measures of a model on a split (`distvae/tasks/measures`)."""
SinkName = Literal["tensorboard"]
"""Programs besides MLflow that show the metrics of runs."""
Scaling = Literal["none", "root", "linear"]
"""Rules by which learning rates grow with the batch."""


@family("train")
@dataclass(frozen=True)
class Train:
    """Training with Adam: its schedule and its end."""

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
    """Batch for which the rates and all warmups are set. With another batch, warmups take the same
    number of rows. null: `batch`, or the batch of the recipe if scale_rate is set.
    """
    schedule: Literal["constant", "cosine", "cyclical"] = "cosine"
    """Course of the learning rate, which begins at the first step, as the warmup does."""
    warmup: Whole = 500
    """Steps over which the learning rate rises from zero to the rate of the schedule."""
    cycle: Count = 20
    """Epochs of one cycle of the cyclical schedule, a triangle between rate_low and rate."""
    rate_low: NonNegative = 0.0
    """Smallest rate of the cosine and the cyclical schedule."""
    clip: Positive | None = None
    """Largest norm of the gradient of all parameters, in nats. Longer gradients are scaled down to
    it; null does not clip.
    """
    local_steps: Whole = 0
    """Steps that each worker takes alone, on its share of a batch, before parameters are averaged.

    With 0 all workers take every step together and the result equals the result of one worker.
    Otherwise the result depends on the number of workers.
    """
    val_rows: Count | None = 65536
    """Largest number of rows that are scored after each epoch. They are a fixed sample, drawn by
    the seed, of the validation rows, or of the training rows if a search keeps states for them.
    null scores all rows.
    """
    patience: Count | None = None
    """Stop after this many epochs without a better validation objective; null never stops early."""
    stop_at_noise: bool = False
    """Stop when the sigma of a Gaussian TVAE falls 1 % below the white noise in the training rows,
    which is estimated from their covariance. A model that explains more learns the noise itself.
    Has no effect if values are missing.
    """
    sigma: Positive | None = None
    """Known standard deviation of the white noise in the data, in the units of the data. Training
    stops once the model's sigma falls 1 % below it, without an estimate from the training rows.
    null: unknown. Has no effect if values are missing.
    """
    seed: Whole = 0
    """Seed of the initial weights, of the order of rows and of all noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` uses a GPU if the machine has one."""
    threads: Processes | None = 1
    """Threads of one process; null takes torch's default. Small layers gain little from more
    threads and lose much on a busy machine.
    """
    products: Literal["auto", "blas", "onednn"] = "auto"
    """Library for matrix products on the CPU: torch's BLAS (MKL on x86) or oneDNN. `auto` takes the
    library that suits the processor.
    """
    gradients: Literal["auto", "autograd"] = "auto"
    """`auto` uses hand-written gradients if available: for a TVAE, and for encoder models on a GPU.
    `autograd` never uses them.
    """
    graphs: bool = True
    """Record steps on a GPU as CUDA graphs and replay up to 64 steps with one launch instead of one
    launch for each operation. Not used with several workers.
    """
    tf32: bool = False
    """Let a GPU multiply in TF32, with 10 mantissa bits instead of 23: faster for layers of some
    hundred units, and less precise.
    """
    bits: Literal["same", "any"] = "same"
    """`same` refuses to resume a run on a machine whose results would differ in the last digits,
    and refuses workers whose results would differ from each other. `any` accepts the difference.
    """

    sinks: tuple[SinkName, ...] = ()
    """Programs besides MLflow for which a run writes its metrics into its folder: `tensorboard`."""

    def __post_init__(self) -> None:
        """Refuse to scale rates without a base batch."""
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
    latent: Literal["mean", "active", "sample"] = "mean"
    """Decode the posterior mean (VSC: gamma * mu) or a sample of the posterior. `active`: the mean
    with zeros for values that tell less than half a nat about x (VSC: whose gate is probably
    closed).
    """
    recordings: Literal["trimmed", "whole"] = "trimmed"
    """`trimmed` scores recordings as used in training, `whole` with the ends that `data.trim_db`
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
    """Measures besides bound, error and sparsity. Other data has no recording measures."""
    values: Count | None = None
    """Resynthesise from this number of the values of each frame's code, the largest; null: from all
    values.
    """
    importance: Annotated[int, Range(1, 100_000)] = 100
    """Draws for each row in the importance-weighted bound."""
    codes: Literal["mean", "gated", "binary"] = "mean"
    """Codes for probes and measures of factors. `mean`: the mean of the posterior (VSC: of its
    slabs). `gated`: this mean times the gate probabilities of VSC. `binary`: the active latents.
    """
    frequencies: FrequencyScale = "linear"
    """The scale of frequencies in spectrograms."""
    labels: Count = 5000
    """Largest number of training rows whose classes probes may use."""
    probe_hidden: Widths = ()
    """Widths of the hidden layers of `probe_sgd`; an empty list makes it linear."""
    processes: Processes | None = None
    """Processes that score files in parallel; null starts a process for each sufficient amount of
    work, at most one per core.
    """
