"""The position of a training, and the record of one epoch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from distvae.numerics.metrics import declare

declare("bound", "bound", "objective", "kl")
declare("bound", "train_objective", "val_kl")
FIGURES_OF_TRAINING = declare("bound", "val_bound", "val_objective")
"""The metrics of epochs by which trials may be ranked."""
declare("sparsity", "val_hoyer")
declare("time", "seconds", "rows_per_second", "estep_seconds", "data_seconds", "mstep_seconds")


@dataclass
class Position:
    """The position of a training: its state except parameters, optimiser and populations."""

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    sigma: float = math.inf
    """The model's noise sigma after the last epoch; infinity for models without sigma."""
    shift: int = 0
    """Correction of the number of steps, after epochs on other rows with more or fewer batches."""


@dataclass(frozen=True)
class Epoch:
    """The record of one epoch. Objectives, bounds and divergences are in nats per data point."""

    epoch: int
    """The number of finished epochs."""
    epochs: int
    train_objective: float
    """The mean over the epoch, while parameters change."""
    val_objective: float
    val_bound: float
    val_kl: float
    val_hoyer: float
    rate: float
    rows_per_second: float
    seconds: float
    """Training time since the run began, over all resumptions."""
    best: bool
    """True if the validation objective is the best so far, or if it cannot rank epochs."""
    details: Mapping[str, float] = field(default_factory=dict)
    """Metrics of some models: sigma, active and dead latents, replaced states, seconds by phase."""

    def metrics(self) -> dict[str, float]:
        """Return the metrics to log, without NaN."""
        figures = {
            k: float(v) for k, v in asdict(self).items() if k not in ("epochs", "best", "details")
        }
        return {k: v for k, v in (figures | dict(self.details)).items() if not math.isnan(v)}

    @classmethod
    def read(cls, record: Mapping[str, float], epochs: int) -> "Epoch":
        """Return an epoch from its record. The record does not tell whether it was the best."""
        names = {f.name for f in fields(cls)} - {"epoch", "epochs", "best", "details"}
        figures = {name: record.get(name, math.nan) for name in names}
        details = {name: value for name, value in record.items() if name not in names | {"epoch"}}
        return cls(
            epoch=int(record["epoch"]), epochs=epochs, best=False, details=details, **figures
        )
