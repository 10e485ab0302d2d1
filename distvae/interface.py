"""The protocols that models and E-steps follow.

An E-step returns a posterior, and a model bounds log p(x) with it. Whether that posterior came from
an encoder's forward pass or from a search over binary states is known to the E-step alone;
everything else uses posteriors and `expect(q, f)`. A bound is in nats per row; larger is better.

A model follows `LatentModel`, an E-step follows `EStep`. Either follows as many of the other
protocols as it has something to do for: training asks by `isinstance`.

Shapes: B rows of a batch, S points of a posterior, D values of an observation, H values of a code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from distvae.numerics.facts import Facts
from distvae.numerics.lanes import HeldRows
from distvae.numerics.noise import Noise

Sums: TypeAlias = dict[str, Tensor]
"""Sums over rows, by name. They add over batches and over workers."""


class Batch(NamedTuple):
    """Some rows of a dataset."""

    x: Tensor
    """(B, D) observations."""
    row: Tensor
    """(B,) the numbers of the rows in their dataset. They stay on the host, whatever the device."""
    mask: Tensor | None = None
    """(B, D) True where x was observed; None when all of it was."""
    seen: Tensor | None = None
    """(B, D) what an encoder sees of the rows, if that was computed for many rows at once."""

    @classmethod
    def of(cls, x: Tensor, row: Tensor) -> "Batch":
        """Return rows whose missing values are NaN."""
        observed = ~x.isnan()
        if bool(observed.all()):
            return cls(x, row)
        return cls(x.where(observed, 0.0), row, observed)

    def completed(self, values: Tensor) -> "Batch":
        """Return the batch with these (B, D) in the place of missing values."""
        assert self.mask is not None
        return Batch(self.x.where(self.mask, values), self.row)

    def part(self, rows: slice) -> "Batch":
        """Return consecutive rows of the batch."""
        mask = None if self.mask is None else self.mask[rows]
        seen = None if self.seen is None else self.seen[rows]
        return Batch(self.x[rows], self.row[rows], mask, seen)


@runtime_checkable
class Posterior(Protocol):
    """An approximation of p(z | x). It carries the prior that it is measured against."""

    @property
    def code(self) -> Tensor:
        """(B, H) the mean of z, which represents x."""

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return states (B, S, H) and their weights (B, S).

        Without draws the states are fixed: the mean, or all states of a finite posterior.
        """

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S), at points of this posterior."""


@runtime_checkable
class Expects(Protocol):
    """A posterior that computes expectations in a way of its own."""

    def expect(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Return E_q[f(z)], (B, ...), without draws."""


class Module(Protocol):
    """The part of torch's `nn.Module` that training and run folders use."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is learned."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what is learned, by name."""

    def modules(self) -> Iterator[nn.Module]:
        """Yield this module and all inside it."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters and buffers, by name."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """Set parameters and buffers, by name."""

    def to(self, device: torch.device) -> Self:
        """Move parameters and buffers to a device."""

    def eval(self) -> Self:
        """Leave the mode of training."""


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
        """Return codes (B, 1, H) drawn from the prior, one for each row of the noise."""

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x | z), (B, S), over the values that were observed."""

    def bound(self, batch: Batch, q: Q, noise: Noise) -> Tensor:
        """Return an estimate (B,) of a lower bound of log p(x)."""

    def objective(self, batch: Batch, q: Q, noise: Noise) -> Tensor:
        """Return what training maximises, (B,): the bound, or a relaxed or penalised form of it."""


class EStep(Module, Protocol[M, Q_co]):
    """An E-step: it finds the posteriors of models of type M."""

    def __call__(self, model: M, batch: Batch) -> Q_co:
        """Return the posteriors of rows in training."""

    def infer(self, model: M, batch: Batch, sweeps: int | None = None) -> Q_co:
        """Return posteriors under a model that does not change; keep nothing.

        A search over new data takes so many sweeps, by default those of its configuration. With
        none it returns the posteriors of rows in training.
        """


@runtime_checkable
class TransformsInput(Protocol):
    """An E-step with an encoder that does not see rows as they are."""

    def transform(self, batch: Batch) -> Tensor:
        """Return what the encoder sees, (B, D)."""


AnyModel: TypeAlias = LatentModel[Any]
"""A model. The posteriors it takes are those of its E-step, which the configuration decides."""
AnyEStep: TypeAlias = EStep[Any, Posterior]
"""An E-step. The models it takes are decided by the configuration."""


@runtime_checkable
class Prepares(Protocol):
    """A model or an E-step that looks at the training data before the first epoch."""

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Take statistics of the data, or first states of the rows that this worker holds."""


@runtime_checkable
class PreparesFromFacts(Protocol):
    """A model or an E-step that may need no look at the data, if facts about it are recorded."""

    def prepare_from(self, facts: Facts) -> bool:
        """Take statistics of the data from recorded facts; return False if they do not suffice."""


@runtime_checkable
class HasOutput(Protocol):
    """A model whose decoder returns a parameter of the likelihood, such as a logit or log power."""

    def output(self, z: Tensor) -> Tensor:
        """Return that parameter: (..., H) -> (..., D)."""


@runtime_checkable
class Scheduled(Protocol):
    """A model with warm-ups or temperatures."""

    def at(self, step: float) -> None:
        """Set what depends on the number of steps taken; infinity ends all warm-ups."""


@runtime_checkable
class Completes(Protocol):
    """A model that may train on values of its own in the place of missing ones. What training then
    increases is not the bound on the observed values, so an epoch of a lower one may be better.
    """

    @property
    def completes(self) -> bool:
        """True if it does."""


@runtime_checkable
class Projects(Protocol):
    """A model whose parameters are constrained, such as to columns of unit norm."""

    def project(self) -> None:
        """Return to the feasible set after a step."""


@runtime_checkable
class ClosedForm(Protocol[Q]):
    """A model of which parameters have closed-form updates, once for each epoch."""

    def statistics(self, batch: Batch, q: Q, noise: Noise) -> Sums:
        """Return the sums over a batch that the updates need."""

    def maximise(self, total: Sums) -> None:
        """Update the parameters from an epoch's sums."""


class Engine(Protocol):
    """The gradient of a model's objective, computed by hand instead of by autograd."""

    def differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Set the gradients of minus the mean objective over so many rows; return sums."""


@runtime_checkable
class HasEngine(Protocol):
    """A model that may compute its gradients by hand."""

    def engine(self, estep: AnyEStep) -> Engine | None:
        """Return the engine for training with this E-step; None leaves gradients to autograd."""


@runtime_checkable
class Reports(Protocol):
    """A model or an E-step with figures of its own for the record of an epoch."""

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return figures by name, from an epoch's sums over so many rows."""


@runtime_checkable
class Searches(Protocol[M]):
    """An E-step that improves the posteriors of a block of rows before training on them."""

    @property
    def block_size(self) -> int:
        """The number of rows that are searched together."""

    def search_block(self, model: M, batch: Batch, noise: Noise) -> Sums:
        """Improve the posteriors of a block; return sums for the record of the epoch."""


@runtime_checkable
class Persistent(Protocol[S]):
    """An E-step or a store with state beside its weights, such as populations."""

    def save(self, folder: Path | str, generation: str) -> list[S]:
        """Write new files into a folder; return the entries by which a checkpoint names them."""

    def load(self, folder: Path | str, files: Sequence[S]) -> None:
        """Read the state back from the files that all workers saved."""


def prepare(
    part: Module,
    blocks: Iterable[Tensor],
    held: HeldRows,
    seed: int,
    facts: Facts | None = None,
) -> None:
    """Show the training data to a model or an E-step, if it wants to see it.

    Recorded facts about the data take its place where they suffice.
    """
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
