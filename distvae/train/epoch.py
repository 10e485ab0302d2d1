"""The progress of training, and the record of one epoch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from distvae.numerics.figures import declare

declare("bound", "bound", "objective", "kl")
declare("bound", "train_objective", "val_kl")
FIGURES_OF_TRAINING = declare("bound", "val_bound", "val_objective")
"""The figures of epochs that trials may be ranked by."""
declare("sparsity", "val_hoyer")
declare("time", "seconds", "rows_per_second", "estep_seconds", "data_seconds", "mstep_seconds")


@dataclass
class Position:
    """The progress of training: everything that is neither parameter nor optimiser state."""

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    sigma: float = math.inf
    """The noise that the model found in the last epoch, if it finds any."""
    shift: int = 0
    """Steps that epochs on other rows had beyond the number of batches of an epoch now."""


@dataclass(frozen=True)
class Epoch:
    """The record of one epoch. Objectives, bounds and divergences are nats per data point."""

    epoch: int
    """The number of finished epochs."""
    epochs: int
    train_objective: float
    """Mean over the epoch, under parameters that moved."""
    val_objective: float
    val_bound: float
    val_kl: float
    val_hoyer: float
    rate: float
    rows_per_second: float
    seconds: float
    """Seconds in training since the run began, resumed parts included."""
    best: bool
    """True if no earlier epoch had a better validation objective, or none can be ranked by it."""
    details: Mapping[str, float] = field(default_factory=dict)
    """Figures that only some models have: sigma, active and dead latents, replaced states, seconds
    by part.
    """

    def metrics(self) -> dict[str, float]:
        """Return the figures to log: those that the model has."""
        figures = {
            k: float(v) for k, v in asdict(self).items() if k not in ("epochs", "best", "details")
        }
        return {k: v for k, v in (figures | dict(self.details)).items() if not math.isnan(v)}

    @classmethod
    def read(cls, record: Mapping[str, float], epochs: int) -> "Epoch":
        """Return an epoch from its record, which does not hold whether it was the best."""
        names = {f.name for f in fields(cls)} - {"epoch", "epochs", "best", "details"}
        figures = {name: record.get(name, math.nan) for name in names}
        details = {name: value for name, value in record.items() if name not in names | {"epoch"}}
        return cls(
            epoch=int(record["epoch"]), epochs=epochs, best=False, details=details, **figures
        )
