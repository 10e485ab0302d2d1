"""Protocols of engines: what training asks of them beside a gradient."""

from typing import Protocol, runtime_checkable

from distvae.interface import Engine, Sums


@runtime_checkable
class SumsLater(Engine, Protocol):
    """An engine that returns sums of many steps at once.

    They count the steps before the first whose objective is not finite, by the name `finite`.
    """

    def sums(self) -> Sums:
        """Return the sums over the batches of all steps that were not summed up yet."""


@runtime_checkable
class Refreshes(Protocol):
    """An engine that keeps what it derives from parameters with closed-form updates."""

    def refresh(self) -> None:
        """Renew it in place where these have changed, before a recorded step is replayed."""
