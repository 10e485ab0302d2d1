"""An E-step returns a posterior; a model bounds log p(x) with it.

Whether that posterior came from an encoder's forward pass or from a search over binary states is
the E-step's affair. Everything downstream speaks of posteriors and of `expect(q, f)`. One
convention holds throughout: a bound is in nats per data point, and larger is better.

Shapes: B rows of a batch, S points of a posterior, D values of an observation, H values of a latent
state.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from distvae.numerics.lanes import HeldRows
from distvae.numerics.noise import Noise


class Batch(NamedTuple):
    """Some rows of a dataset."""

    x: Tensor
    """(B, D) observations."""
    row: Tensor
    """(B,) where each sample lives in its dataset, on the host whatever the device: stores find
    populations by it.
    """
    mask: Tensor | None = None
    """(B, D) True where x was observed; None when all of it was."""

    @classmethod
    def of(cls, x: Tensor, row: Tensor) -> "Batch":
        """Rows whose missing values are NaN."""
        seen = ~x.isnan()
        return cls(x, row) if bool(seen.all()) else cls(x.where(seen, 0.0), row, seen)


class Posterior(Protocol):
    """An approximation of p(z | x); the prior it is measured against travels with it."""

    @property
    def code(self) -> Tensor:
        """(B, H) the representation of x: mu | a | gamma * mu | E_q[z]."""

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """States (B, S, H) and weights (B, S). Zero draws leave nothing to chance: the mean, or all
        kept states.
        """

    def log_ratio(self, z: Tensor) -> Tensor:
        """(B, S) log p(z) - log q(z) at points of it."""


Q = TypeVar("Q", contravariant=True)


class LatentModel(Protocol[Q]):
    """p(x, z), and how it is fitted given posteriors."""

    def prepare(self, blocks: Iterable[Tensor]) -> None:
        """Take what is needed from the training data before the first epoch."""

    def decode(self, z: Tensor) -> Tensor:
        """(B, S, H) -> (B, S, D): E[x | z]."""

    def prior(self, noise: Noise, estep: Any) -> Tensor:
        """(B, 1, H) states drawn from the prior, one for each row of the noise."""

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """(B, S) log p(x | z) over what was observed."""

    def bound(self, batch: Batch, q: Q, noise: Noise) -> Tensor:
        """(B,) an estimate of a lower bound of log p(x)."""

    def objective(self, batch: Batch, q: Q, noise: Noise) -> Tensor:
        """(B,) what training maximises: the bound, or what stands in for it (relaxed gates, beta,
        penalties).
        """

    def project(self) -> None:
        """After a step: return to the feasible set, such as unit-norm columns."""

    def at(self, step: float) -> None:
        """Where training stands, for warm-ups; infinity is their end."""

    def statistics(self, batch: Batch, q: Q, noise: Noise) -> dict[str, Tensor]:
        """Sums over the batch, which add over batches and workers."""

    def maximise(self, total: dict[str, Tensor]) -> None:
        """Closed-form updates from an epoch's statistics."""

    def telemetry(self, total: dict[str, Tensor]) -> dict[str, float]:
        """What this model alone has to tell of an epoch."""


M = TypeVar("M", contravariant=True)
Q_co = TypeVar("Q_co", covariant=True)


class EStep(Protocol[M, Q_co]):
    """Where posteriors come from."""

    block: int
    """Rows that `ahead` looks at together; 0 where there is nothing to do before a batch."""

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Take what is needed from the training data before the first epoch: statistics, first
        states.
        """

    def search_block(self, model: M, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Improve the posteriors of a block of rows whose batches come next; sums worth knowing."""

    def prefetch(self, rows: Tensor) -> None:
        """These are the rows of the block after this one."""

    def drain(self) -> None:
        """Wait until what was found is where it belongs."""

    def telemetry(self) -> dict[str, float]:
        """What there is to tell of keeping it, since the last time."""

    def __call__(self, model: M, batch: Batch) -> Q_co:
        """Posteriors of rows in training."""

    def infer(self, model: M, batch: Batch, sweeps: int) -> Q_co:
        """Posteriors under a frozen model; nothing is kept. Sweeps improve those of new data; rows
        need none.
        """

    def save(self, folder: Path, name: str) -> list[Any]:
        """Write what is no weight, such as populations; what a checkpoint has to remember of it."""

    def load(self, folder: Path, kept: Sequence[Any]) -> None:
        """The inverse of `save`, given what those of all workers returned."""


def expect(
    q: Posterior, f: Callable[[Tensor], Tensor], draws: int = 0, noise: Noise | None = None
) -> Tensor:
    """E_q[f(z)], (B, ...): the weighted sum of f over the posterior's points."""
    z, weight = q.points(draws, noise)
    return torch.einsum("bs,bs...->b...", weight, f(z))
