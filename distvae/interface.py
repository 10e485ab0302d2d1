"""The protocols that models and E-steps follow.

An E-step returns a posterior, and a model bounds log p(x) with it. Only the E-step knows whether
the posterior came from an encoder's forward pass or from a search over binary states. All other
code uses posteriors and `expect(q, f)`. A bound is in nats per row; larger is better.

A model implements `LatentModel`, and an E-step implements `EStep`. All further protocols are
optional; training checks for them with `isinstance`.

Shapes: B rows of a batch, S points of a posterior, D values of an observation, H values of a code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from distvae.numerics.arrays import Facts
from distvae.numerics.noise import Noise
from distvae.numerics.rows import HeldRows

Sums: TypeAlias = dict[str, Tensor]
"""Sums over rows, by name. Training adds them up over batches and over workers."""


class Batch(NamedTuple):
    """Some rows of a dataset."""

    x: Tensor
    """(B, D) observations."""
    row: Tensor
    """(B,) the numbers of the rows in their dataset. They always stay on the host."""
    mask: Tensor | None = None
    """(B, D) True where x was observed; None if all values were observed."""
    seen: Tensor | None = None
    """(B, D) the transformed input of the encoder, if it was precomputed for many rows at once."""

    @classmethod
    def of(cls, x: Tensor, row: Tensor) -> "Batch":
        """Return a batch of rows in which NaN marks missing values."""
        observed = ~x.isnan()
        if bool(observed.all()):
            return cls(x, row)
        return cls(x.where(observed, 0.0), row, observed)

    def completed(self, values: Tensor) -> "Batch":
        """Return the batch with missing values replaced by `values` (B, D)."""
        assert self.mask is not None
        return Batch(self.x.where(self.mask, values), self.row)

    def part(self, rows: slice) -> "Batch":
        """Return a slice of the batch."""
        mask = None if self.mask is None else self.mask[rows]
        seen = None if self.seen is None else self.seen[rows]
        return Batch(self.x[rows], self.row[rows], mask, seen)


@runtime_checkable
class Posterior(Protocol):
    """An approximation of p(z | x). It carries its prior."""

    @property
    def code(self) -> Tensor:
        """(B, H) the posterior mean, which is the code of x."""

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return states (B, S, H) and their weights (B, S).

        With `draws` = 0 the states are deterministic: the mean, or all states of a finite
        posterior.
        """

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S), at points of this posterior."""


@runtime_checkable
class Expects(Protocol):
    """A posterior with its own method for expectations."""

    def expect(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Return E_q[f(z)], (B, ...), without draws."""


class Module(Protocol):
    """The part of torch's `nn.Module` that training and run folders use."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters with their names."""

    def modules(self) -> Iterator[nn.Module]:
        """Yield this module and all its submodules."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters and buffers, by name."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """Set parameters and buffers, by name."""

    def to(self, device: torch.device) -> Self:
        """Move parameters and buffers to a device."""

    def eval(self) -> Self:
        """Switch to evaluation mode."""


Q = TypeVar("Q", contravariant=True)
Q_co = TypeVar("Q_co", covariant=True)
M = TypeVar("M", contravariant=True)
S = TypeVar("S")


class LatentModel(Module, Protocol[Q]):
    """A model p(x, z) that is fitted with posteriors of type Q."""

    @property
    def code_size(self) -> int:
        """H, the number of values of a code."""

    def decode(self, z: Tensor) -> Tensor:
        """Return E[x | z]: (B, S, H) -> (B, S, D)."""

    def prior(self, noise: Noise, estep: "AnyEStep") -> Tensor:
        """Return codes (B, 1, H) drawn from the prior, one code for each row of `noise`."""

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x | z), (B, S), over the observed values."""

    def bound(self, batch: Batch, q: Q, noise: Noise) -> Tensor:
        """Return an estimate (B,) of a lower bound of log p(x)."""

    def objective(self, batch: Batch, q: Q, noise: Noise) -> Tensor:
        """Return the training objective (B,): the bound, or a relaxed or penalised bound."""


class EStep(Module, Protocol[M, Q_co]):
    """An E-step: it finds the posteriors of models of type M."""

    def __call__(self, model: M, batch: Batch) -> Q_co:
        """Return the posteriors of rows in training."""

    def infer(self, model: M, batch: Batch, sweeps: int | None = None) -> Q_co:
        """Return posteriors under a fixed model, without storing anything.

        A search over new data takes `sweeps` sweeps, by default `estep.sweeps`. With `sweeps` = 0
        it returns the posteriors of training rows.
        """


@runtime_checkable
class TransformsInput(Protocol):
    """An E-step whose encoder takes transformed rows."""

    def transform(self, batch: Batch) -> Tensor:
        """Return the input of the encoder, (B, D)."""


AnyModel: TypeAlias = LatentModel[Any]
"""A model of any posterior type. The configuration pairs it with an E-step."""
AnyEStep: TypeAlias = EStep[Any, Posterior]
"""An E-step for any model type. The configuration pairs it with a model."""


@runtime_checkable
class Prepares(Protocol):
    """A model or an E-step that reads the training data before the first epoch."""

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Compute statistics of the data, or draw first states of the rows this worker holds."""


@runtime_checkable
class PreparesFromFacts(Protocol):
    """A model or an E-step that can use recorded statistics instead of reading the data."""

    def prepare_from(self, facts: Facts) -> bool:
        """Use recorded statistics of the data; return False if they do not suffice."""


@runtime_checkable
class HasOutput(Protocol):
    """A model whose decoder returns a parameter of the likelihood, such as a logit or log power."""

    def output(self, z: Tensor) -> Tensor:
        """Return the parameter of the likelihood: (..., H) -> (..., D)."""


@runtime_checkable
class Scheduled(Protocol):
    """A model with warm-ups or temperatures."""

    def at(self, step: float) -> None:
        """Update all schedules to a step number; infinity ends all warm-ups."""


@runtime_checkable
class Ranks(Protocol):
    """A model that tells whether its objective ranks epochs. It does not, for example, while
    training imputes missing values: the objective is then not the bound on the observed values.
    """

    def ranks(self, may_be_missing: bool) -> bool:
        """Return whether a larger objective means a better epoch, on data in which values may be
        missing.
        """


@runtime_checkable
class Diverges(Protocol):
    """A posterior with a divergence from its prior."""

    def kl(self) -> Tensor:
        """Return KL(q(z) || p(z)), (B,)."""


@runtime_checkable
class Projects(Protocol):
    """A model whose parameters are constrained, such as to columns of unit norm."""

    def project(self) -> None:
        """Project the parameters onto the feasible set after a step."""


@runtime_checkable
class ClosedForm(Protocol[Q]):
    """A model with parameters that are updated in closed form, at the end of an epoch."""

    def statistics(self, batch: Batch, q: Q, noise: Noise) -> Sums:
        """Return the sums over a batch that the closed-form updates need."""

    def maximise(self, total: Sums) -> None:
        """Update the parameters from an epoch's sums."""


@runtime_checkable
class Updates(Protocol):
    """A `ClosedForm` model that may also be updated several times in an epoch."""

    @property
    def rows_of_update(self) -> int:
        """The number of rows after which an update is due, 0 for those of an epoch."""

    @property
    def since_update(self) -> tuple[str, ...]:
        """The names of the sums that begin anew after an update."""


class Engine(Protocol):
    """The gradient of a model's objective, computed by hand instead of by autograd."""

    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Set the gradients of minus the objective summed over the batch and divided by `rows`.

        Return sums over the batch.
        """


@runtime_checkable
class Reports(Protocol):
    """A model or an E-step that adds its own metrics to the record of an epoch."""

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return metrics by name, from an epoch's sums over `rows` rows."""


@runtime_checkable
class Searches(Protocol[M]):
    """An E-step that improves the posteriors of a block of rows before training on them."""

    @property
    def block_size(self) -> int:
        """The number of rows in a block."""

    def search_block(self, model: M, batch: Batch, noise: Noise) -> Sums:
        """Improve the posteriors of a block; return sums for the epoch's record."""


@runtime_checkable
class Persistent(Protocol[S]):
    """An E-step or a store with state besides its weights, such as populations."""

    def save(self, folder: Path | str, generation: str) -> list[S]:
        """Write the state to new files in a folder; return their entries for the checkpoint."""

    def load(self, folder: Path | str, files: Sequence[S]) -> None:
        """Read the state from the files that all workers saved."""


def prepare(
    part: Module,
    blocks: Iterable[Tensor],
    held: HeldRows,
    seed: int,
    facts: Facts | None = None,
) -> None:
    """Prepare a model or an E-step from recorded statistics, or else from the training data."""
    if facts and isinstance(part, PreparesFromFacts) and part.prepare_from(facts):
        return
    if isinstance(part, Prepares):
        part.prepare(blocks, held, seed)


def expect(
    q: Posterior, f: Callable[[Tensor], Tensor], draws: int = 0, noise: Noise | None = None
) -> Tensor:
    """Return E_q[f(z)], (B, ...): the weighted sum of f over the posterior's points."""
    if draws == 0 and isinstance(q, Expects):
        return q.expect(f)
    z, weight = q.points(draws, noise)
    return torch.einsum("bs,bs...->b...", weight, f(z))
