"""What ends a training: a rule, or an exception that ends it early."""

from dataclasses import dataclass

from distvae.config import Train
from distvae.data.dataset import Rows
from distvae.data.noise_floor import noise_floor
from distvae.train.epoch import Position
from distvae.train.team import Team

BELOW = 0.99
"""The share of the noise in the rows that a model's sigma falls to before training ends: the noise
is known to about 1 %.
"""


@dataclass(frozen=True)
class Ending:
    """The rule by which a training ends after an epoch."""

    epochs: int
    patience: int | None
    """Epochs without a better validation objective after which it ends; None if it does not."""
    noise: float
    """The noise in the rows, below which it ends; 0 if it does not."""

    @classmethod
    def of(
        cls, config: Train, rows: Rows, may_be_missing: bool, team: Team, scale: float
    ) -> "Ending":
        """Return the rule of a configuration for the rows to train on: the same on all workers.

        A value of the rows is `scale` in the units of the data.
        """
        noise = 0.0
        if config.sigma and not may_be_missing:
            noise = config.sigma / scale
        elif config.stop_at_noise and not may_be_missing and team.rank == 0:
            noise = noise_floor(rows)
        return cls(config.epochs, config.patience, team.gather(noise)[0])

    def is_reached(self, position: Position) -> bool:
        """Return whether a training ends here."""
        worse = position.epoch - position.best_epoch
        out_of_patience = self.patience is not None and worse >= self.patience
        return position.epoch >= self.epochs or out_of_patience or self.is_below_noise(position)

    def is_below_noise(self, position: Position) -> bool:
        """Return whether the model leaves less unexplained than the noise."""
        return position.sigma <= BELOW * self.noise


class Interrupted(Exception):
    """Training was asked to stop, and stopped between two batches."""


class Diverged(ArithmeticError):
    """The objective is no longer finite."""


def diverged(where: str) -> Diverged:
    """Return the error that says which objective is no longer finite, and what may help."""
    return Diverged(f"the objective {where}; a smaller train.rate may help, or train.clip")
