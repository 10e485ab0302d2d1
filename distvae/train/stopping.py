"""The rule by which a training ends, and the exceptions that end it early."""

from dataclasses import dataclass

from distvae.config import Train
from distvae.data.dataset import Rows
from distvae.data.noise import noise_floor
from distvae.train.epoch import Position
from distvae.train.team import Team

BELOW = 0.99
"""Training ends once a model's sigma is below this share of the noise in the rows, which is known
to about 1 %.
"""


@dataclass(frozen=True)
class Ending:
    """The rule by which a training ends after an epoch."""

    epochs: int
    patience: int | None
    """Training ends after this number of epochs without a better validation objective; None for
    no limit.
    """
    noise: float
    """Training ends once sigma falls below this noise in the rows; 0 for no limit."""

    @classmethod
    def of(
        cls, config: Train, rows: Rows, may_be_missing: bool, team: Team, scale: float
    ) -> "Ending":
        """Return the rule of a configuration for the training rows, equal on all workers.

        A value of 1 in the rows is `scale` in the units of the data.
        """
        noise = 0.0
        if config.sigma and not may_be_missing:
            noise = config.sigma / scale
        elif config.stop_at_noise and not may_be_missing and team.rank == 0:
            noise = noise_floor(rows)
        return cls(config.epochs, config.patience, team.gather(noise)[0])

    def is_reached(self, position: Position) -> bool:
        """Return whether a training ends at a position."""
        worse = position.epoch - position.best_epoch
        out_of_patience = self.patience is not None and worse >= self.patience
        return position.epoch >= self.epochs or out_of_patience or self.is_below_noise(position)

    def is_below_noise(self, position: Position) -> bool:
        """Return whether the model's sigma has fallen below the noise in the rows."""
        return position.sigma <= BELOW * self.noise


class Interrupted(Exception):
    """Training stopped between two batches, on request."""


class Diverged(ArithmeticError):
    """The objective is no longer finite."""


def diverged(where: str) -> Diverged:
    """Return an error for an objective that is no longer finite, with advice."""
    return Diverged(f"the objective {where}; a smaller train.rate may help, or train.clip")
