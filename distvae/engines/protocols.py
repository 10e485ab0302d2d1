"""Protocols of engines: what training asks of them beside a gradient."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from distvae.interface import Batch, Engine, Sums
from distvae.numerics.noise import Noise


class Request(NamedTuple):
    """The arguments of an engine."""

    batch: Batch
    noise: Noise
    rows: int
    """The rows of all workers, over which the objective is averaged."""


@runtime_checkable
class SumsLater(Engine, Protocol):
    """An engine that returns sums of many steps at once.

    They count the steps before the first whose objective is not finite, by the name `finite`.
    """

    def sums(self) -> Sums:
        """Return the sums over the batches of all steps that were not summed up yet."""


class Stack(Protocol):
    """Engines of several trainings that compute their gradients together."""

    def differentiate(self, requests: Sequence[Request]) -> list[Sums]:
        """Do for each engine what it does alone, with the same results, and return all sums."""


@runtime_checkable
class Stackable(Engine, Protocol):
    """An engine that can compute together with others whose layers have the same shapes."""

    def stack(self, others: Sequence[Engine]) -> Stack | None:
        """Return this engine and others as one, or None if one of them has other layers."""


@runtime_checkable
class Refreshes(Protocol):
    """An engine that keeps what it derives from parameters with closed-form updates."""

    def refresh(self) -> None:
        """Renew it in place where these have changed, before a recorded step is replayed."""
