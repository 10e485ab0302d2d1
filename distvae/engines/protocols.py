"""Optional protocols of engines, besides `Engine`."""

from typing import Protocol, runtime_checkable

from distvae.interface import Engine, Sums


@runtime_checkable
class SumsLater(Engine, Protocol):
    """An engine that returns the sums of many steps at once.

    The sum `finite` counts the steps before the first step with an objective that is not finite.
    """

    def sums(self) -> Sums:
        """Return the sums over the batches of all accumulated steps."""


@runtime_checkable
class Refreshes(Protocol):
    """An engine that caches values derived from parameters with closed-form updates."""

    def refresh(self) -> None:
        """Update the cached values in place, before a recorded step is replayed."""
